#include "core/cpu/attention_tiles.h"

#include <algorithm>
#include <limits>

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

// A maximum below every score that is finite: masked scores then give exp(-infinity) = 0, never
// NaN.
constexpr float kLowest = -1.0e30f;

template <typename T>
STRATA_MULTIVERSION void load_row(const T* __restrict from, float* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}

template <typename T>
STRATA_MULTIVERSION void store_row(const float* __restrict from, T* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

STRATA_MULTIVERSION void transpose(const float* __restrict from, std::int64_t padded, float scale,
                                   float* __restrict to) {
  for (std::int64_t d = 0; d < padded; ++d) {
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      to[d * kTile + lane] = from[lane * padded + d] * scale;
    }
  }
}

template <typename T>
STRATA_MULTIVERSION void store_transposed(const float* __restrict from,
                                          const float* __restrict factor, std::int64_t rows,
                                          std::int64_t head_size, T* __restrict to,
                                          std::int64_t stride) {
  for (std::int64_t lane = 0; lane < rows; ++lane) {
    for (std::int64_t d = 0; d < head_size; ++d) {
      store(to[lane * stride + d], from[d * kTile + lane] * factor[lane]);
    }
  }
}

STRATA_MULTIVERSION void mask_rows(const std::int32_t* __restrict first,
                                   const std::int32_t* __restrict last, std::int32_t key,
                                   float* __restrict scores) {
  for (std::int32_t row = 0; row < kTile; ++row) {
    float* __restrict line = scores + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const bool seen = (first[lane] <= key + row) & (key + row <= last[lane]);
      line[lane] = seen ? line[lane] : -std::numeric_limits<float>::infinity();
    }
  }
}

STRATA_MULTIVERSION void advance_maximum(const float* __restrict scores, float* __restrict maximum,
                                         float* __restrict shrink) {
  float now[kTile];
  for (std::int64_t lane = 0; lane < kTile; ++lane) now[lane] = maximum[lane];
  for (std::int64_t row = 0; row < kTile; ++row) {
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const float score = scores[row * kTile + lane];
      now[lane] = now[lane] < score ? score : now[lane];
    }
  }
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    shrink[lane] = exponential(maximum[lane] - now[lane]);
    maximum[lane] = now[lane];
  }
}

STRATA_MULTIVERSION void exponentials(float* __restrict scores, const float* __restrict maximum,
                                      const float* __restrict shrink, float* __restrict sum) {
  float partial[kTile] = {};
  for (std::int64_t row = 0; row < kTile; ++row) {
    float* __restrict line = scores + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const float probability = exponential(line[lane] - maximum[lane]);
      line[lane] = probability;
      partial[lane] += probability;
    }
  }
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    sum[lane] = sum[lane] * shrink[lane] + partial[lane];
  }
}

STRATA_MULTIVERSION void scale_lanes(float* __restrict output, const float* __restrict factor,
                                     std::int64_t rows) {
  for (std::int64_t row = 0; row < rows; ++row) {
    float* __restrict line = output + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) line[lane] *= factor[lane];
  }
}

STRATA_MULTIVERSION void gradient_rows(float* __restrict scores, float* __restrict gradient,
                                       const float* __restrict log_sum,
                                       const float* __restrict delta, float scale) {
  for (std::int64_t row = 0; row < kTile; ++row) {
    float* __restrict score = scores + row * kTile;
    float* __restrict slope = gradient + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const float probability = exponential(score[lane] - log_sum[lane]);
      score[lane] = probability;
      slope[lane] = scale * probability * (slope[lane] - delta[lane]);
    }
  }
}

STRATA_MULTIVERSION float row_product(const float* __restrict a, const float* __restrict b,
                                      std::int64_t n) {
  return sum_in_lanes(
      n, [=](std::int64_t i) __attribute__((always_inline)) { return a[i] * b[i]; });
}

}  // namespace

template <typename T>
void load_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t head_size,
               float* to) {
  const std::int64_t padded = padded_head_size(head_size);
  for (std::int64_t row = 0; row < kTile; ++row) {
    float* line = to + row * padded;
    const std::int64_t filled = row < rows ? head_size : 0;
    if (filled > 0) load_row(from + row * stride, line, filled);
    std::fill(line + filled, line + padded, 0.0f);
  }
}

void transpose_to_lanes(const float* from, std::int64_t padded, float scale, float* to) {
  transpose(from, padded, scale, to);
}

template <typename T>
void store_lanes(const float* from, const float* factor, std::int64_t rows, std::int64_t head_size,
                 T* to, std::int64_t stride) {
  store_transposed(from, factor, rows, head_size, to, stride);
}

template <typename T>
void store_rows(const float* from, std::int64_t rows, std::int64_t head_size, T* to,
                std::int64_t stride) {
  const std::int64_t padded = padded_head_size(head_size);
  for (std::int64_t row = 0; row < rows; ++row) {
    store_row(from + row * padded, to + row * stride, head_size);
  }
}

QueryRange query_range(const std::int32_t* first_key, std::int64_t window, std::int64_t query,
                       std::int64_t queries) {
  QueryRange range{};
  range.end = query + queries;
  range.begin = range.end;
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    const bool inside = lane < queries;
    std::int32_t first = inside && first_key != nullptr ? std::max(first_key[query + lane], 0) : 0;
    if (window > 0) {
      first = static_cast<std::int32_t>(std::max<std::int64_t>(first, query + lane - window + 1));
    }
    range.first[lane] = inside ? first : std::numeric_limits<std::int32_t>::max();
    range.last[lane] = inside ? static_cast<std::int32_t>(query + lane) : -1;
    if (inside) range.begin = std::min<std::int64_t>(range.begin, first);
  }
  return range;
}

bool sees_all(const QueryRange& range, std::int64_t key) {
  return std::ranges::all_of(range.first, [=](std::int32_t first) { return first <= key; }) &&
         std::ranges::all_of(range.last,
                             [=](std::int32_t last) { return key + kTile - 1 <= last; });
}

void mask_scores(const QueryRange& range, std::int64_t key, float* scores) {
  mask_rows(range.first, range.last, static_cast<std::int32_t>(key), scores);
}

void take_scores(float* scores, RunningSoftmax& softmax, float* output, std::int64_t padded) {
  float shrink[kTile];
  advance_maximum(scores, softmax.maximum, shrink);
  exponentials(scores, softmax.maximum, shrink, softmax.sum);
  scale_lanes(output, shrink, padded);
}

void softmax_gradient(float* scores, float* gradient, const float* log_sum, const float* delta,
                      float scale) {
  gradient_rows(scores, gradient, log_sum, delta, scale);
}

void row_products(const float* a, const float* b, std::int64_t padded, float* delta) {
  for (std::int64_t row = 0; row < kTile; ++row) {
    delta[row] = row_product(a + row * padded, b + row * padded, padded);
  }
}

RunningSoftmax empty_softmax() {
  RunningSoftmax softmax;
  std::ranges::fill(softmax.maximum, kLowest);
  std::ranges::fill(softmax.sum, 0.0f);
  return softmax;
}

template void load_rows(const float*, std::int64_t, std::int64_t, std::int64_t, float*);
template void load_rows(const bf16*, std::int64_t, std::int64_t, std::int64_t, float*);
template void load_rows(const f16*, std::int64_t, std::int64_t, std::int64_t, float*);
template void store_lanes(const float*, const float*, std::int64_t, std::int64_t, float*,
                          std::int64_t);
template void store_lanes(const float*, const float*, std::int64_t, std::int64_t, bf16*,
                          std::int64_t);
template void store_lanes(const float*, const float*, std::int64_t, std::int64_t, f16*,
                          std::int64_t);
template void store_rows(const float*, std::int64_t, std::int64_t, float*, std::int64_t);
template void store_rows(const float*, std::int64_t, std::int64_t, bf16*, std::int64_t);
template void store_rows(const float*, std::int64_t, std::int64_t, f16*, std::int64_t);

}  // namespace strata::cpu
