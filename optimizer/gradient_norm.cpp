#include "optimizer/gradient_norm.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::int64_t kLanes =
    32;  // independent partial sums: what the widest vector unit keeps busy
constexpr std::int64_t kBatchOfLeaves = 256;  // leaf sums on the stack at a time

/// Element i goes to lane i % kLanes; then the lanes are added pairwise. The square of a float is
/// exact in double, so a fused multiply-add gives the same bits, and no sum of them overflows.
template <typename Element>
[[gnu::always_inline]] inline double leaf_sum(const Element* __restrict values,
                                              std::int64_t numel) {
  std::array<double, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= numel; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = static_cast<double>(static_cast<float>(values[i + lane]));
      lanes[static_cast<std::size_t>(lane)] += value * value;
    }
  }
  for (std::int64_t lane = 0; i + lane < numel; ++lane) {
    const double value = static_cast<double>(static_cast<float>(values[i + lane]));
    lanes[static_cast<std::size_t>(lane)] += value * value;
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

STRATA_MULTIVERSION
double leaf_sum_fp32(const float* values, std::int64_t numel) { return leaf_sum(values, numel); }

STRATA_MULTIVERSION
double leaf_sum_bf16(const bf16* values, std::int64_t numel) { return leaf_sum(values, numel); }

STRATA_MULTIVERSION
double leaf_sum_fp16(const f16* values, std::int64_t numel) { return leaf_sum(values, numel); }

double sum_leaf(const float* values, std::int64_t numel) { return leaf_sum_fp32(values, numel); }
double sum_leaf(const bf16* values, std::int64_t numel) { return leaf_sum_bf16(values, numel); }
double sum_leaf(const f16* values, std::int64_t numel) { return leaf_sum_fp16(values, numel); }

template <typename Element>
double add_leaves(double sum, const Element* values, std::int64_t numel, int threads) {
  std::array<double, kBatchOfLeaves> sums;
  const std::int64_t leaves = (numel + kNormLeaf - 1) / kNormLeaf;
  for (std::int64_t first = 0; first < leaves; first += kBatchOfLeaves) {
    const std::int64_t count = std::min(kBatchOfLeaves, leaves - first);
    const int team = static_cast<int>(std::min<std::int64_t>(threads, count));
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (std::int64_t leaf = 0; leaf < count; ++leaf) {
      const std::int64_t begin = (first + leaf) * kNormLeaf;
      sums[static_cast<std::size_t>(leaf)] =
          sum_leaf(values + begin, std::min(kNormLeaf, numel - begin));
    }
    for (std::int64_t leaf = 0; leaf < count; ++leaf) sum += sums[static_cast<std::size_t>(leaf)];
  }
  return sum;
}

}  // namespace

void add_to_norm(GradientNorm& norm, ConstTensorView gradient, std::int64_t begin, int threads) {
  expects(begin >= 0 && begin % kNormLeaf == 0,
          "a gradient norm continues at a multiple of 65536 elements of its shard");
  expects(threads >= 1, "a gradient norm needs at least one thread");
  visit_compute_dtype(gradient.dtype(), [&](auto element) {
    norm.sum_of_squares = add_leaves(norm.sum_of_squares, gradient.as<decltype(element)>(),
                                     gradient.numel(), threads);
  });
  // Squares of finite floats are at most 1.2e77 each: only a NaN or an infinity makes the sum one.
  norm.finite = norm.finite && std::isfinite(norm.sum_of_squares);
}

float clip_coefficient(double norm, double max_norm) noexcept {
  return static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
}

UpdateDecision decide_update(double norm, bool finite, double max_norm) {
  if (!(max_norm >= 0.0)) {
    throw UsageError(fmt::format(
        "the gradient norm to clip to is {}; choose a positive number, or 0 for no clipping",
        max_norm));
  }
  if (!finite || !std::isfinite(norm)) return {.skip = true, .scale = 0.0f};
  return {.skip = false, .scale = max_norm == 0.0 ? 1.0f : clip_coefficient(norm, max_norm)};
}

}  // namespace strata
