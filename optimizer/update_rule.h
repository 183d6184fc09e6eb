#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/dtype.h"

namespace strata {

/// The numbers of one optimizer step, the same on every rank.
struct UpdateStep {
  std::int64_t step = 1;  ///< 1 for the first update: bias correction uses it
  float learning_rate = 0.0f;
  float gradient_scale = 1.0f;  ///< on every gradient: clip coefficient / loss scale
};

/// One chunk of a shard's sections in host memory, all of `numel` elements. The fp32 master is
/// (hi << 16) + lo (see optimizer/split.h). `gradient` is fp32, bf16 or fp16 and only read. `m` and
/// `v` may be null where the rule does not use them.
struct UpdateChunk {
  std::int64_t numel = 0;
  std::uint16_t* hi = nullptr;
  std::int16_t* lo = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  const void* gradient = nullptr;
  Dtype gradient_dtype = Dtype::kF32;
};

/// A run of elements of a chunk that the rule treats alike.
struct UpdateSegment {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool decay = true;  ///< weight decay applies
};

/// Which sections beside hi and lo a rule reads and writes: the others need no bytes anywhere.
struct StateSections {
  bool m = false;
  bool v = false;
};

/// Advances sections by one step, elementwise: any chunk of any shard, in any order, gives the same
/// bits. Elements outside the segments (padding, frozen) are left alone. Runs on the caller's
/// thread with `threads` OpenMP threads, whose number does not change a bit either. Moments start
/// as zeros.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;

  /// Returns when the chunk is done. The sections must not overlap; they need no alignment beyond
  /// their type. Thread-safe for different chunks.
  /// @pre `segments` ascend, do not overlap and lie in [0, chunk.numel)
  /// @throws Error before anything is changed if an argument breaks these promises
  virtual void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
                      const UpdateStep& step, int threads) const = 0;

  virtual StateSections state_sections() const noexcept = 0;
};

/// `rule`, with weight decay on every segment whatever it says.
std::unique_ptr<UpdateRule> decay_everywhere(std::unique_ptr<UpdateRule> rule);

}  // namespace strata
