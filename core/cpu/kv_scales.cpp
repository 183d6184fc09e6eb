#include "core/cpu/kv_scales.h"

#include "core/cpu/attention_tiles.h"
#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

STRATA_MULTIVERSION void add_lane(const float* __restrict parts, const bf16* __restrict scales,
                                  float* __restrict sums) {
  for (std::int64_t key = 0; key < kTile; ++key) sums[key] += parts[key] * load(scales[key]);
}

STRATA_MULTIVERSION void add_tile(const float* __restrict parts, const bf16* __restrict scales,
                                  float* __restrict sums) {
  for (std::int64_t key = 0; key < kTile; ++key) {
    const float factor = load(scales[key]);
    for (std::int64_t i = key * kTile; i < (key + 1) * kTile; ++i) sums[i] += parts[i] * factor;
  }
}

STRATA_MULTIVERSION void multiply_lane(const float* __restrict from, const bf16* __restrict scales,
                                       float* __restrict to) {
  for (std::int64_t key = 0; key < kTile; ++key) to[key] = from[key] * load(scales[key]);
}

STRATA_MULTIVERSION void multiply_tile(const float* __restrict from, const bf16* __restrict scales,
                                       std::int64_t keys, float* __restrict to) {
  for (std::int64_t key = 0; key < kTile; ++key) {
    const float factor = key < keys ? load(scales[key]) : 0.0f;
    for (std::int64_t i = key * kTile; i < (key + 1) * kTile; ++i) to[i] = from[i] * factor;
  }
}

}  // namespace

void add_scaled_lane(const float* parts, const bf16* scales, float* sums) {
  add_lane(parts, scales, sums);
}
void add_scaled_tile(const float* parts, const bf16* scales, float* sums) {
  add_tile(parts, scales, sums);
}
void scale_lane(const float* from, const bf16* scales, float* to) {
  multiply_lane(from, scales, to);
}
void scale_tile(const float* from, const bf16* scales, std::int64_t keys, float* to) {
  multiply_tile(from, scales, keys, to);
}

}  // namespace strata::cpu
