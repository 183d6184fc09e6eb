#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"

namespace strata {

/// A fixed group of ranks that call the same collectives in the same order.
///
/// Every operation is enqueued on stream() and returns at once unless it says that it blocks; order
/// it against other work with stream().wait(event) before and stream().record() after. Operands
/// must stay alive until then. All operations of one group are submitted by one thread per rank. A
/// call that fails leaves the group unusable: let the exception reach main(), which ends the job on
/// every rank.
///
/// Sums add in the order of the ranks, in fp32, so every rank and every run gets the same bits.
/// Counts may exceed 2^31 elements. There is no communication in constructors' callers' backs: no
/// getter, operator or destructor talks to other ranks.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;  ///< in [0, size())
  virtual int size() const noexcept = 0;
  /// The lane that collectives run on.
  virtual Stream& stream() = 0;

  /// full[r * n + i] = shard of rank r [i], with n = shard.numel(). Any dtype.
  /// @pre full.numel() == n * size(). `shard` may be this rank's part of `full`.
  virtual void all_gather(ConstTensorView shard, TensorView full) = 0;

  /// shard[i] = sum over ranks of full[rank() * n + i]. fp32.
  /// @pre full.numel() == n * size(); `shard` may be this rank's part of `full`.
  virtual void reduce_scatter_sum(ConstTensorView full, TensorView shard) = 0;

  /// result[i] on rank `root` = sum over ranks of part[i]. fp32; `result` is ignored on other ranks
  /// and may be `part`. For pieces that belong to one rank.
  virtual void reduce_sum(ConstTensorView part, TensorView result, int root) = 0;

  /// values[i] = sum over ranks of values[i], in place, everywhere the same bits. fp32.
  virtual void all_reduce_sum(TensorView values) = 0;

  /// Makes `bytes` the same as rank `root`'s.
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;

  // Blocking, for norms, losses, agreement and reports, not for tensors.

  virtual double sum(double value) = 0;
  virtual double max(double value) = 0;
  /// What every rank passed, by rank, everywhere. Lengths may differ.
  virtual std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> bytes) = 0;
  /// Returns when every rank has come here and all earlier operations are done.
  virtual void barrier() = 0;

  /// Makes operations in flight and later ones on this rank fail soon instead of waiting for other
  /// ranks; tells nobody. For owners of operands that are destroyed by an exception: abandon, then
  /// synchronize the stream, then free. May be called from any thread.
  virtual void abandon() noexcept {}
};

/// A world of one: copies, or nothing at all where an operand is in place. Has a lane of its own.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace strata
