#pragma once

#include <cstdint>

#include "core/dtype.h"

// The pieces attention is made of, on tiles of kTile queries and kTile keys in fp32. Score tiles
// hold one key per row and one query per lane, so the softmax over keys runs across rows and needs
// no sums within a vector. D is the head size, P = padded_head_size(D).

namespace strata::cpu {

/// Queries and keys of a tile. A constant: it decides the order of the additions.
constexpr std::int64_t kTile = 64;

/// D rounded up to what tile products take.
constexpr std::int64_t padded_head_size(std::int64_t head_size) {
  return (head_size + 31) / 32 * 32;
}

/// to[kTile, P] = rows of a head as fp32; what lies beyond `rows` or D becomes zero.
/// `stride` is the distance of rows in `from`.
template <typename T>
void load_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t head_size,
               float* to);

/// to[P, kTile] = from[kTile, P] transposed and scaled.
void transpose_to_lanes(const float* from, std::int64_t padded, float scale, float* to);

/// Rows of a head = from[D, kTile] transposed, times factor[lane], rounded to T.
template <typename T>
void store_lanes(const float* from, const float* factor, std::int64_t rows, std::int64_t head_size,
                 T* to, std::int64_t stride);

/// Rows of a head = from[rows, P], rounded to T.
template <typename T>
void store_rows(const float* from, std::int64_t rows, std::int64_t head_size, T* to,
                std::int64_t stride);

/// The keys each query of a tile sees: first[lane] <= key <= last[lane], counted within the
/// sequence. Lanes beyond the sequence see nothing.
struct QueryRange {
  std::int32_t first[kTile];
  std::int32_t last[kTile];
  std::int64_t begin;  ///< first key that any lane sees
  std::int64_t end;    ///< one past the last
};
/// @param first_key of the sequence's first token, or nullptr for 0 everywhere
/// @param window as in AttentionShape
QueryRange query_range(const std::int32_t* first_key, std::int64_t window, std::int64_t query,
                       std::int64_t queries);

/// Whether every lane sees every key of [key, key + kTile).
bool sees_all(const QueryRange& range, std::int64_t key);

/// scores[key, lane] = -infinity where the lane does not see the key.
void mask_scores(const QueryRange& range, std::int64_t key, float* scores);

/// The running softmax of a tile of queries.
struct RunningSoftmax {
  float maximum[kTile];
  float sum[kTile];
};
/// The softmax before its first score.
RunningSoftmax empty_softmax();
/// Takes a masked score tile in: turns it into exp(score - new maximum), updates maximum and sum,
/// and scales output[P, kTile] to the new maximum.
void take_scores(float* scores, RunningSoftmax& softmax, float* output, std::int64_t padded);

/// probability = exp(score - log_sum[lane]) in place of the scores, and
/// gradient = scale * probability * (gradient - delta[lane]), both [kTile keys, kTile lanes].
/// Masked scores give zeros.
void softmax_gradient(float* scores, float* gradient, const float* log_sum, const float* delta,
                      float scale);

/// delta[row] = sum(a b) over the P elements of each of kTile rows.
void row_products(const float* a, const float* b, std::int64_t padded, float* delta);

}  // namespace strata::cpu
