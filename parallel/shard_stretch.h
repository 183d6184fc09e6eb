#pragma once

// Internal to the trainer. Not installed.

#include <algorithm>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/units.h"
#include "parallel/partition.h"
#include "swap/shard_store.h"

namespace strata {

/// A stretch of a part's values, in memory of its own (8 MiB): masters, or of frozen parameters the
/// weights that products read. Stretches begin and end at multiples of kShardAlignment.
class ShardStretch {
 public:
  /// Elements at most.
  static constexpr std::int64_t kNumel = 1 << 20;

  /// @param precision of masters that are fetched: kF32, or kBf16 for the upper half alone
  ShardStretch(ShardStore& store, int part, Dtype compute, Dtype precision = Dtype::kF32);

  int part() const noexcept { return weights_.block; }
  /// Blocks until the elements are here.
  void fetch(std::int64_t begin, std::int64_t numel);
  /// The elements as zeros, to be filled and stored.
  void start(std::int64_t begin, std::int64_t numel);
  /// Blocks until the elements are at rest.
  void store();
  std::span<float> values() { return values_; }

 private:
  void lease(std::int64_t begin, std::int64_t numel, bool reads);
  std::int16_t* low();

  ShardStore& store_;
  SectionKey weights_;
  bool whole_;  // in one piece, of compute_
  Dtype compute_;
  bool lower_;  // there is a lower half, and it is wanted
  Buffer buffer_ = allocate_host(kNumel * sizeof(float));
  std::vector<Lease> leases_;  // into buffer_, one after the other: weights, lower half
  std::vector<float> values_;
};

/// Calls visit(begin, numel) for stretches that cover a shard's elements [from, to), cut so that
/// every section can be transferred. None if the range is empty or the wrong way round.
template <typename Visitor>
void for_stretches(std::int64_t from, std::int64_t to, Visitor&& visit) {
  if (from >= to) return;
  for (std::int64_t begin = from / kShardAlignment * kShardAlignment; begin < to;) {
    const std::int64_t end = std::min(begin + ShardStretch::kNumel, round_up(to, kShardAlignment));
    visit(begin, end - begin);
    begin = end;
  }
}

}  // namespace strata
