#include "parallel/ordered_sum.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace strata {
namespace {

// Partial sums of one stretch stay in the first-level cache, so every part is read once and the
// result is written once, however many ranks there are.
constexpr std::size_t kStretch = 2048;

STRATA_MULTIVERSION
void add_to(float* __restrict sum, const float* __restrict part, std::size_t numel) {
  for (std::size_t i = 0; i < numel; ++i) sum[i] += part[i];
}

}  // namespace

void ordered_sum(std::span<const float* const> parts, float* result, std::size_t numel) {
  alignas(64) std::array<float, kStretch> sum;
  for (std::size_t begin = 0; begin < numel; begin += kStretch) {
    const std::size_t count = std::min(kStretch, numel - begin);
    std::memcpy(sum.data(), parts[0] + begin, count * sizeof(float));
    for (const float* part : parts.subspan(1)) add_to(sum.data(), part + begin, count);
    std::memcpy(result + begin, sum.data(), count * sizeof(float));
  }
}

}  // namespace strata
