#pragma once

#include <cstddef>
#include <span>

#include "parallel/mpi/mpi_group.h"

namespace strata::mpi {

/// Memory that all ranks of a node have mapped, zero at first. It has no name once it is
/// constructed, so nothing is left behind however the job ends.
class NodeMemory {
 public:
  /// Collective over `node`; all ranks succeed or all throw.
  /// @throws Error naming the bytes when /dev/shm has no room or is not shared by the ranks
  NodeMemory(const Group& node, std::size_t bytes);
  ~NodeMemory();
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  std::span<std::byte> bytes() const noexcept { return {data_, bytes_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace strata::mpi
