#pragma once

#include <cstdint>

#include "core/cpu/attention_tiles.h"
#include "core/ops.h"

namespace strata::cpu {

/// Words below it are dropped. @pre 0 <= rate < 1
std::uint32_t drop_threshold(const Dropout& dropout);
/// 1 / (1 - rate): what is kept is multiplied by it.
float kept_factor(const Dropout& dropout);

/// The rows of a tile of queries in the matrix of one head's probabilities.
struct DropoutLanes {
  std::uint32_t first[kTile];
  std::uint32_t second[kTile];
  std::uint32_t threshold;
  float kept;  ///< kept_factor()
};
/// @param query number of lane 0 among all tokens of the operation
DropoutLanes dropout_lanes(const AttentionShape& shape, std::int64_t query, std::int64_t head);

/// scores[key, lane] = 0 where dropped, for keys [key, key + kTile). What is kept stays: multiply
/// the sum by lanes.kept.
void drop_scores(const DropoutLanes& lanes, std::int64_t key, float* scores);

/// softmax_gradient() where the probabilities were dropped behind the softmax: the dropped ones in
/// place of the scores, and gradient = scale * probability * (dropped gradient - delta[lane]).
void dropped_softmax_gradient(const DropoutLanes& lanes, std::int64_t key, float* scores,
                              float* gradient, const float* log_sum, const float* delta,
                              float scale);

}  // namespace strata::cpu
