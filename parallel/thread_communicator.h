#pragma once

#include <memory>

#include "parallel/transport.h"

namespace strata {

/// A world of ranks that are threads of this process: the same collectives as between processes of
/// one node, in one debuggable program. Owns the memory they share; outlives its communicators.
class ThreadWorld {
 public:
  explicit ThreadWorld(int ranks, const CollectiveOptions& options = {});
  ~ThreadWorld();
  ThreadWorld(const ThreadWorld&) = delete;
  ThreadWorld& operator=(const ThreadWorld&) = delete;

  int size() const noexcept;
  /// The communicator of `rank`, to be used by one thread. May be asked for once per rank, from any
  /// thread.
  std::unique_ptr<Communicator> communicator(int rank);
  /// Makes operations of all ranks fail soon, because one of them will not come.
  void abandon() noexcept;

 private:
  class Region;
  std::unique_ptr<Region> region_;
};

}  // namespace strata
