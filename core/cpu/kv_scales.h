#pragma once

#include <cstdint>

#include "core/dtype.h"

// Sums over the elements of a quantised group get its scale key by key; so do the probabilities
// that meet its values. For one lane [kTile keys], and for a tile of them [kTile keys, kTile].

namespace strata::cpu {

/// sums += parts * scale of the key.
void add_scaled_lane(const float* parts, const bf16* scales, float* sums);
void add_scaled_tile(const float* parts, const bf16* scales, float* sums);
/// to = from * scale of the key. Of a tile, zeros from key `keys` on.
void scale_lane(const float* from, const bf16* scales, float* to);
void scale_tile(const float* from, const bf16* scales, std::int64_t keys, float* to);

}  // namespace strata::cpu
