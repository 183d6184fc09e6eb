#include <cmath>

#include "core/cpu/check.h"
#include "core/cpu/column_sums.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

// Formulas of one row of C features, with r = rstd:
//   rms_norm    n = x r            dx = r (g - n mean(g n)),            g = w dy
//   layer_norm  n = (x - mean) r   dx = r (g - mean(g) - n mean(g n))
// and over rows dw = sum(dy n), db = sum(dy).

template <typename T>
STRATA_MULTIVERSION float rms_norm_row(const T* __restrict x, const T* __restrict w, float eps,
                                       T* __restrict y, std::int64_t n) {
  const float squares = sum_in_lanes(
      n, [=](std::int64_t i) __attribute__((always_inline)) { return load(x[i]) * load(x[i]); });
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < n; ++i) store(y[i], load(w[i]) * round_to<T>(load(x[i]) * rstd));
  return rstd;
}

template <typename T>
STRATA_MULTIVERSION void rms_norm_backward_row(const T* __restrict dy, const T* __restrict x,
                                               const T* __restrict w, float rstd, T* __restrict dx,
                                               std::int64_t n) {
  const float products = sum_in_lanes(
      n, [=](std::int64_t i) __attribute__((always_inline)) {
        return load(dy[i]) * load(w[i]) * (load(x[i]) * rstd);
      });
  const float mean = products / static_cast<float>(n);
  for (std::int64_t i = 0; i < n; ++i) {
    store(dx[i], rstd * (load(dy[i]) * load(w[i]) - load(x[i]) * rstd * mean));
  }
}

struct Moments {
  float mean;
  float rstd;
};

template <typename T>
STRATA_MULTIVERSION Moments layer_norm_row(const T* __restrict x, const T* __restrict w,
                                           const T* __restrict b, float eps, T* __restrict y,
                                           std::int64_t n) {
  const float mean =
      sum_in_lanes(
          n, [=](std::int64_t i) __attribute__((always_inline)) { return load(x[i]); }) /
      static_cast<float>(n);
  const float squares = sum_in_lanes(
      n, [=](std::int64_t i)
             __attribute__((always_inline)) { return (load(x[i]) - mean) * (load(x[i]) - mean); });
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < n; ++i) {
    store(y[i], (load(x[i]) - mean) * rstd * load(w[i]) + load(b[i]));
  }
  return {mean, rstd};
}

template <typename T>
STRATA_MULTIVERSION void layer_norm_backward_row(const T* __restrict dy, const T* __restrict x,
                                                 const T* __restrict w, Moments moments,
                                                 T* __restrict dx, std::int64_t n) {
  const auto [mean, rstd] = moments;
  const float center = mean, scale = rstd;
  const float sum = sum_in_lanes(
      n, [=](std::int64_t i) __attribute__((always_inline)) { return load(dy[i]) * load(w[i]); });
  const float products = sum_in_lanes(
      n, [=](std::int64_t i) __attribute__((always_inline)) {
        return load(dy[i]) * load(w[i]) * ((load(x[i]) - center) * scale);
      });
  const float mean_gradient = sum / static_cast<float>(n);
  const float mean_product = products / static_cast<float>(n);
  for (std::int64_t i = 0; i < n; ++i) {
    const float normalised = (load(x[i]) - center) * scale;
    store(dx[i], scale * (load(dy[i]) * load(w[i]) - mean_gradient - normalised * mean_product));
  }
}

/// partial[c] += dy[c] round(x[c] r): a row's part of the weight gradient of rms_norm.
template <typename T>
STRATA_MULTIVERSION void rms_norm_weight_row(const T* __restrict dy, const T* __restrict x,
                                             float rstd, float* __restrict partial,
                                             std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    partial[i] += load(dy[i]) * round_to<T>(load(x[i]) * rstd);
  }
}

template <typename T>
STRATA_MULTIVERSION void layer_norm_weight_row(const T* __restrict dy, const T* __restrict x,
                                               Moments moments, float* __restrict partial,
                                               std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    partial[i] += load(dy[i]) * ((load(x[i]) - moments.mean) * moments.rstd);
  }
}

template <typename T>
void rms_norm_backward_rows(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                            ConstTensorView rstd, TensorView dx, TensorView dw, Rows size) {
  const auto [rows, features] = size;
  const T* dy_data = dy.as<T>();
  const T* x_data = x.as<T>();
  const float* rstd_data = rstd.as<float>();
  const std::int64_t columns = features;
  for_row_blocks(rows, columns, [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t t = begin; t < begin + count; ++t) {
      rms_norm_backward_row(dy_data + t * columns, x_data + t * columns, w.as<T>(), rstd_data[t],
                            dx.as<T>() + t * columns, columns);
    }
  });
  add_column_terms(rows, columns, dw.as<float>(),
                   [=](std::int64_t t, std::int64_t column, std::int64_t count, float* partial) {
                     const std::int64_t offset = t * columns + column;
                     rms_norm_weight_row(dy_data + offset, x_data + offset, rstd_data[t], partial,
                                         count);
                   });
}

template <typename T>
void layer_norm_backward_rows(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                              ConstTensorView mean, ConstTensorView rstd, TensorView dx,
                              TensorView dw, TensorView db, Rows size) {
  const T* dy_data = dy.as<T>();
  const T* x_data = x.as<T>();
  const std::int64_t columns = size.features;
  const auto moments = [&](std::int64_t t) {
    return Moments{mean.as<float>()[t], rstd.as<float>()[t]};
  };
  for_row_blocks(size.rows, columns, [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t t = begin; t < begin + count; ++t) {
      layer_norm_backward_row(dy_data + t * columns, x_data + t * columns, w.as<T>(), moments(t),
                              dx.as<T>() + t * columns, columns);
    }
  });
  add_column_terms(size.rows, columns, dw.as<float>(),
                   [&](std::int64_t t, std::int64_t column, std::int64_t count, float* partial) {
                     const std::int64_t offset = t * columns + column;
                     layer_norm_weight_row(dy_data + offset, x_data + offset, moments(t), partial,
                                           count);
                   });
  add_column_sums(dy_data, size.rows, columns, db.as<float>());
}

}  // namespace

void CpuOps::rms_norm(ConstTensorView x, ConstTensorView w, float eps, TensorView y,
                      TensorView rstd, Stream& stream) {
  expect_compute("rms_norm", "x", x);
  const Rows size = rows_of("rms_norm", x);
  expect_tensor("rms_norm", "w", w, x.dtype(), {size.features});
  expect_tensor("rms_norm", "y", y, x.dtype(), x.shape());
  expect_tensor("rms_norm", "rstd", rstd, Dtype::kF32, {size.rows});
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const std::int64_t offset = t * size.features;
          rstd.as<float>()[t] =
              rms_norm_row(x.as<T>() + offset, w.as<T>(), eps, y.as<T>() + offset, size.features);
        }
      });
    });
  });
}

void CpuOps::rms_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                               ConstTensorView rstd, TensorView dx, TensorView dw, Stream& stream) {
  expect_compute("rms_norm_backward", "x", x);
  const Rows size = rows_of("rms_norm_backward", x);
  expect_tensor("rms_norm_backward", "dy", dy, x.dtype(), x.shape());
  expect_tensor("rms_norm_backward", "w", w, x.dtype(), {size.features});
  expect_tensor("rms_norm_backward", "rstd", rstd, Dtype::kF32, {size.rows});
  expect_tensor("rms_norm_backward", "dx", dx, x.dtype(), x.shape());
  if (!dw.empty()) expect_tensor("rms_norm_backward", "dw", dw, Dtype::kF32, {size.features});
  submit(stream, threads_, [=] {
    visit_compute_dtype(
        x.dtype(), [&]<typename T>(T) { rms_norm_backward_rows<T>(dy, x, w, rstd, dx, dw, size); });
  });
}

void CpuOps::layer_norm(ConstTensorView x, ConstTensorView w, ConstTensorView b, float eps,
                        TensorView y, TensorView mean, TensorView rstd, Stream& stream) {
  expect_compute("layer_norm", "x", x);
  const Rows size = rows_of("layer_norm", x);
  expect_tensor("layer_norm", "w", w, x.dtype(), {size.features});
  expect_tensor("layer_norm", "b", b, x.dtype(), {size.features});
  expect_tensor("layer_norm", "y", y, x.dtype(), x.shape());
  expect_tensor("layer_norm", "mean", mean, Dtype::kF32, {size.rows});
  expect_tensor("layer_norm", "rstd", rstd, Dtype::kF32, {size.rows});
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const std::int64_t offset = t * size.features;
          const Moments moments = layer_norm_row(x.as<T>() + offset, w.as<T>(), b.as<T>(), eps,
                                                 y.as<T>() + offset, size.features);
          mean.as<float>()[t] = moments.mean;
          rstd.as<float>()[t] = moments.rstd;
        }
      });
    });
  });
}

void CpuOps::layer_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                                 ConstTensorView mean, ConstTensorView rstd, TensorView dx,
                                 TensorView dw, TensorView db, Stream& stream) {
  expect_compute("layer_norm_backward", "x", x);
  const Rows size = rows_of("layer_norm_backward", x);
  expect_tensor("layer_norm_backward", "dy", dy, x.dtype(), x.shape());
  expect_tensor("layer_norm_backward", "w", w, x.dtype(), {size.features});
  expect_tensor("layer_norm_backward", "mean", mean, Dtype::kF32, {size.rows});
  expect_tensor("layer_norm_backward", "rstd", rstd, Dtype::kF32, {size.rows});
  expect_tensor("layer_norm_backward", "dx", dx, x.dtype(), x.shape());
  if (!dw.empty()) expect_tensor("layer_norm_backward", "dw", dw, Dtype::kF32, {size.features});
  if (!db.empty()) expect_tensor("layer_norm_backward", "db", db, Dtype::kF32, {size.features});
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      layer_norm_backward_rows<T>(dy, x, w, mean, rstd, dx, dw, db, size);
    });
  });
}

}  // namespace strata::cpu
