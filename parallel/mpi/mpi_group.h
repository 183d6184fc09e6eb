#pragma once

#include <mpi.h>

#include <string_view>

#include "core/error.h"

namespace strata::mpi {

/// @throws Error with the library's text unless `result` is MPI_SUCCESS
void check(int result, std::string_view operation, Where where = Where::here());

/// A private copy of an MPI communicator that reports errors instead of ending the process. Owns
/// it; move-only. Construction is collective; destruction is local and does nothing after
/// MPI_Finalize.
class Group {
 public:
  static Group duplicate(MPI_Comm of);
  /// The ranks of `of` that can share memory with this one, in their order.
  static Group on_this_node(const Group& of);
  ~Group();
  Group(Group&& other) noexcept;
  Group& operator=(Group&&) = delete;

  MPI_Comm get() const noexcept { return comm_; }
  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

 private:
  explicit Group(MPI_Comm comm);

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace strata::mpi
