#include "core/cpu/dropout.h"

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"
#include "core/random.h"

namespace strata::cpu {
namespace {

/// x and y may be the same memory, as in the loops of elementwise.cpp.
template <typename T>
STRATA_MULTIVERSION void drop_row(const T* x, T* y, std::int64_t n, RandomRow row,
                                  std::uint32_t threshold, float kept) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const bool drops = random_word(row, static_cast<std::uint32_t>(i)) < threshold;
    store(y[i], drops ? 0.0f : load(x[i]) * kept);
  }
}

STRATA_MULTIVERSION void drop_rows(const std::uint32_t* __restrict first,
                                   const std::uint32_t* __restrict second, std::uint32_t threshold,
                                   std::uint32_t key, float* __restrict scores) {
  for (std::uint32_t row = 0; row < kTile; ++row) {
    float* __restrict line = scores + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const std::uint32_t word = random_word({first[lane], second[lane]}, key + row);
      line[lane] = word < threshold ? 0.0f : line[lane];
    }
  }
}

STRATA_MULTIVERSION void dropped_gradient_rows(const std::uint32_t* __restrict first,
                                               const std::uint32_t* __restrict second,
                                               std::uint32_t threshold, float kept,
                                               std::uint32_t key, float* __restrict scores,
                                               float* __restrict gradient,
                                               const float* __restrict log_sum,
                                               const float* __restrict delta, float scale) {
  for (std::uint32_t row = 0; row < kTile; ++row) {
    float* __restrict score = scores + row * kTile;
    float* __restrict slope = gradient + row * kTile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const std::uint32_t word = random_word({first[lane], second[lane]}, key + row);
      const float factor = word < threshold ? 0.0f : kept;
      const float probability = exponential(score[lane] - log_sum[lane]);
      score[lane] = probability * factor;
      slope[lane] = scale * probability * (slope[lane] * factor - delta[lane]);
    }
  }
}

}  // namespace

std::uint32_t drop_threshold(const Dropout& dropout) {
  return static_cast<std::uint32_t>(static_cast<double>(dropout.rate) * 0x1p32);
}

float kept_factor(const Dropout& dropout) {
  return static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.rate)));
}

DropoutLanes dropout_lanes(const AttentionShape& shape, std::int64_t query, std::int64_t head) {
  const Dropout& dropout = shape.dropout;
  DropoutLanes lanes;
  lanes.threshold = drop_threshold(dropout);
  lanes.kept = kept_factor(dropout);
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    const std::int64_t token = dropout.first_row + query + lane;
    const RandomRow row =
        random_row(dropout.key, static_cast<std::uint64_t>(token * shape.heads + head));
    lanes.first[lane] = row.first;
    lanes.second[lane] = row.second;
  }
  return lanes;
}

void drop_scores(const DropoutLanes& lanes, std::int64_t key, float* scores) {
  drop_rows(lanes.first, lanes.second, lanes.threshold, static_cast<std::uint32_t>(key), scores);
}

void dropped_softmax_gradient(const DropoutLanes& lanes, std::int64_t key, float* scores,
                              float* gradient, const float* log_sum, const float* delta,
                              float scale) {
  dropped_gradient_rows(lanes.first, lanes.second, lanes.threshold, lanes.kept,
                        static_cast<std::uint32_t>(key), scores, gradient, log_sum, delta, scale);
}

void CpuOps::dropout(ConstTensorView x, const Dropout& dropout, TensorView y, Stream& stream) {
  expect_compute("dropout", "x", x);
  expect_tensor("dropout", "y", y, x.dtype(), x.shape());
  expects(dropout.rate >= 0.0f && dropout.rate < 1.0f, "dropout: the rate must be in [0, 1)");
  const Rows size = rows_of("dropout", x);
  submit(stream, threads_, [=] {
    const std::uint32_t threshold = drop_threshold(dropout);
    const float kept = kept_factor(dropout);
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t r = begin; r < begin + count; ++r) {
          const RandomRow row =
              random_row(dropout.key, static_cast<std::uint64_t>(dropout.first_row + r));
          const std::int64_t offset = r * size.features;
          drop_row(x.as<T>() + offset, y.as<T>() + offset, size.features, row, threshold, kept);
        }
      });
    });
  });
}

}  // namespace strata::cpu
