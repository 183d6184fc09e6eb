#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

template <typename T>
STRATA_MULTIVERSION float maximum_of_row(const T* __restrict x, float start, std::int64_t n) {
  float strand[kLanes];
  for (float& lane : strand) lane = start;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = load(x[i + lane]);
      strand[lane] = strand[lane] > value ? strand[lane] : value;
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const float value = load(x[i]);
    strand[lane] = strand[lane] > value ? strand[lane] : value;
  }
  float result = strand[0];
  for (const float lane : strand) result = result > lane ? result : lane;
  return result;
}

template <typename T>
STRATA_MULTIVERSION float sum_of_exponentials(const T* __restrict x, float maximum,
                                              std::int64_t n) {
  Lanes lanes;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes.strand[lane] += exponential(load(x[i + lane]) - maximum);
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes.strand[lane] += exponential(load(x[i]) - maximum);
  return total(lanes);
}

/// dx = factor * exp(x - maximum). In place or not, hence no __restrict.
template <typename From, typename To>
STRATA_MULTIVERSION void scaled_exponentials(const From* x, float maximum, float factor, To* dx,
                                             std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(dx[i], factor * exponential(load(x[i]) - maximum));
}

/// What one row of dlogits needs to know.
struct RowGradient {
  float maximum;
  float sum;
  float scale;
  std::int64_t label;  ///< within the tile, or outside [0, n)
};

template <typename From, typename To>
void gradient_of_row(const From* x, const RowGradient& row, To* dx, std::int64_t n) {
  const float factor = row.scale / row.sum;
  const bool here = row.label >= 0 && row.label < n;
  // Read before the loop: dx may be x. The label's element is scale (p - 1), rounded once.
  const float at_label = here ? load(x[row.label]) : 0.0f;
  scaled_exponentials(x, row.maximum, factor, dx, n);
  if (here) {
    store(dx[row.label], factor * (exponential(at_label - row.maximum) - row.sum));
  }
}

void expect_statistic(std::string_view operation, std::string_view operand, ConstTensorView view,
                      std::int64_t rows) {
  expect_tensor(operation, operand, view, Dtype::kF32, {rows});
}

STRATA_MULTIVERSION double sum_in_double(const float* __restrict x, std::int64_t n) {
  double strand[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) strand[lane] += static_cast<double>(x[i + lane]);
  }
  for (int lane = 0; i < n; ++i, ++lane) strand[lane] += static_cast<double>(x[i]);
  double result = 0.0;
  for (const double lane : strand) result += lane;
  return result;
}

}  // namespace

void CpuOps::softmax_statistics(ConstTensorView logits, std::int64_t row_begin,
                                ConstTensorView labels, bool reset, TensorView maximum,
                                TensorView sum, TensorView label_logit, Stream& stream) {
  expect_compute("softmax_statistics", "logits", logits);
  const Rows size = rows_of("softmax_statistics", logits);
  expect_tensor("softmax_statistics", "labels", labels, Dtype::kI32, {size.rows});
  expect_statistic("softmax_statistics", "maximum", maximum, size.rows);
  expect_statistic("softmax_statistics", "sum", sum, size.rows);
  expect_statistic("softmax_statistics", "label_logit", label_logit, size.rows);
  submit(stream, threads_, [=] {
    visit_compute_dtype(logits.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const T* row = logits.as<T>() + t * size.features;
          const float before =
              reset ? -std::numeric_limits<float>::infinity() : maximum.as<float>()[t];
          const float now = maximum_of_row(row, before, size.features);
          const float kept = reset ? 0.0f : sum.as<float>()[t] * std::exp(before - now);
          maximum.as<float>()[t] = now;
          sum.as<float>()[t] = kept + sum_of_exponentials(row, now, size.features);
          const std::int64_t label = labels.as<std::int32_t>()[t] - row_begin;
          const bool counts = labels.as<std::int32_t>()[t] >= 0;
          if (counts && label >= 0 && label < size.features) {
            label_logit.as<float>()[t] = load(row[label]);
          } else if (reset) {
            label_logit.as<float>()[t] = 0.0f;
          }
        }
      });
    });
  });
}

void CpuOps::cross_entropy(ConstTensorView maximum, ConstTensorView sum,
                           ConstTensorView label_logit, ConstTensorView labels, TensorView loss,
                           Stream& stream) {
  const std::int64_t rows = loss.numel();
  expect_statistic("cross_entropy", "loss", loss, rows);
  expect_statistic("cross_entropy", "maximum", maximum, rows);
  expect_statistic("cross_entropy", "sum", sum, rows);
  expect_statistic("cross_entropy", "label_logit", label_logit, rows);
  expect_tensor("cross_entropy", "labels", labels, Dtype::kI32, {rows});
  submit(stream, threads_, [=] {
    for (std::int64_t t = 0; t < rows; ++t) {
      const bool counts = labels.as<std::int32_t>()[t] >= 0;
      loss.as<float>()[t] = counts ? (maximum.as<float>()[t] - label_logit.as<float>()[t]) +
                                         std::log(sum.as<float>()[t])
                                   : 0.0f;
    }
  });
}

void CpuOps::cross_entropy_backward(ConstTensorView logits, std::int64_t row_begin,
                                    ConstTensorView labels, ConstTensorView maximum,
                                    ConstTensorView sum, float scale, TensorView dlogits,
                                    Stream& stream) {
  expect_compute("cross_entropy_backward", "logits", logits);
  expect_compute("cross_entropy_backward", "dlogits", dlogits);
  const Rows size = rows_of("cross_entropy_backward", logits);
  expect_shape("cross_entropy_backward", "dlogits", dlogits, logits.shape());
  expect_tensor("cross_entropy_backward", "labels", labels, Dtype::kI32, {size.rows});
  expect_statistic("cross_entropy_backward", "maximum", maximum, size.rows);
  expect_statistic("cross_entropy_backward", "sum", sum, size.rows);
  const auto row = [=]<typename From, typename To>(std::int64_t t, const From* x, To* dx) {
    const std::int32_t label = labels.as<std::int32_t>()[t];
    if (label < 0) {
      for (std::int64_t i = 0; i < size.features; ++i) store(dx[i], 0.0f);
      return;
    }
    gradient_of_row(x, {maximum.as<float>()[t], sum.as<float>()[t], scale, label - row_begin}, dx,
                    size.features);
  };
  submit(stream, threads_, [=] {
    visit_compute_dtype(logits.dtype(), [&]<typename From>(From) {
      visit_compute_dtype(dlogits.dtype(), [&]<typename To>(To) {
        for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
          for (std::int64_t t = begin; t < begin + count; ++t) {
            row(t, logits.as<From>() + t * size.features, dlogits.as<To>() + t * size.features);
          }
        });
      });
    });
  });
}

void CpuOps::sum(ConstTensorView x, double* result, Stream& stream) {
  expects(x.dtype() == Dtype::kF32, "sum: x must be fp32");
  expects(result != nullptr, "sum: there is nowhere to put the result");
  submit(stream, threads_, [=] {
    constexpr std::int64_t kLeaf = 65536;  // elements of one partial sum
    std::vector<double> leaves(static_cast<std::size_t>((x.numel() + kLeaf - 1) / kLeaf));
    for_blocks(x.numel(), kLeaf, [&](std::int64_t begin, std::int64_t count) {
      leaves[static_cast<std::size_t>(begin / kLeaf)] = sum_in_double(x.as<float>() + begin, count);
    });
    double total = 0.0;
    for (const double leaf : leaves) total += leaf;
    *result = total;
  });
}

}  // namespace strata::cpu
