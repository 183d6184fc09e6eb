#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "parallel/communicator.h"

namespace strata {

/// What collectives may use, and for how long they wait.
struct CollectiveOptions {
  /// Bytes of one staging piece. A rank holds two in shared memory, so that it fills one while the
  /// others read the other; messages between nodes hold two pieces per rank in private memory.
  /// One MiB stays in a core's cache, which is what makes staging cheap.
  std::size_t piece_bytes = std::size_t{1} << 20;
  /// How long an operation waits for one other rank before it fails.
  std::chrono::milliseconds timeout = std::chrono::seconds(600);
  /// Bytes of the largest MPI message. MPI counts are int, so this stays below 2^31.
  std::size_t largest_message_bytes = std::size_t{1} << 30;
};

/// Moves bytes between the ranks of a group and waits for it: what a Communicator runs on its lane.
///
/// All calls come from one thread at a time, and every rank makes the same calls in the same order.
/// Operands are host memory. A call that throws leaves the group unusable.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// full[r * bytes + i] = shard of rank r [i]; `shard` may be this rank's part of `full`.
  virtual void all_gather(const std::byte* shard, std::byte* full, std::size_t bytes) = 0;
  /// shard[i] = sum over ranks, in their order, of full[rank() * numel + i]; `shard` may be this
  /// rank's part of `full`, whose other parts keep their values.
  virtual void reduce_scatter_sum(const float* full, float* shard, std::size_t numel) = 0;
  /// result[i] on `root` = sum over ranks, in their order, of part[i]; may be in place.
  virtual void reduce_sum(const float* part, float* result, std::size_t numel, int root) = 0;
  virtual void broadcast(std::byte* bytes, std::size_t count, int root) = 0;

  /// Makes a call in progress, and all later ones, throw soon. May be called from any thread.
  virtual void abandon() noexcept = 0;
};

/// A communicator that runs every operation on a lane of its own, through `transport`.
std::unique_ptr<Communicator> make_lane_communicator(std::unique_ptr<Transport> transport);

}  // namespace strata
