#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace strata {

/// Elements per partial sum: a constant, so that no budget enters a floating-point sum.
inline constexpr std::int64_t kNormLeaf = 65536;

/// The sum of squares of the elements added so far, in double, and whether all of them were finite.
struct GradientNorm {
  double sum_of_squares = 0.0;
  bool finite = true;
};

/// Adds elements [begin, begin + gradient.numel()) of a shard to the shard's `norm`; `begin` counts
/// from the start of the shard. `gradient` is fp32, bf16 or fp16 in host memory, unaligned.
///
/// Every leaf of 65,536 shard elements is summed on its own and the leaves are added in ascending
/// order. So if the chunks of a shard come in ascending order and are cut at multiples of
/// kNormLeaf, neither where they are cut nor `threads` (OpenMP, from the caller's thread) changes a
/// bit. Zeros (padding) add nothing. Allocates nothing.
/// @throws Error if begin is no multiple of kNormLeaf or the dtype is another
void add_to_norm(GradientNorm& norm, ConstTensorView gradient, std::int64_t begin, int threads);

/// The factor on every gradient that brings `norm` down to `max_norm`, as
/// torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)).
float clip_coefficient(double norm, double max_norm) noexcept;

/// What the next update does. The same on every rank, since it is computed from the global norm.
struct UpdateDecision {
  bool skip = false;   ///< a gradient was not finite: no section changes
  float scale = 1.0f;  ///< UpdateStep::gradient_scale
};

/// @param norm of the gradients of the whole model: the square root of the sum over shards and
/// ranks
/// @param finite whether every gradient on every rank was finite
/// @param max_norm the norm to clip to; 0 leaves gradients as they are
/// @throws UsageError if max_norm is negative or not a number
UpdateDecision decide_update(double norm, bool finite, double max_norm);

}  // namespace strata
