#include "core/cpu/check.h"
#include "core/cpu/column_sums.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/team.h"

namespace strata::cpu {

void CpuOps::linear(ConstTensorView x, ConstTensorView w, ConstTensorView bias, TensorView y,
                    Stream& stream) {
  expect_compute("linear", "x", x);
  const Rows in = rows_of("linear", x);
  const Rows out = rows_of("linear", y);
  if (is_quantized(w.dtype())) {
    expect_shape("linear", "w", w, {out.features, in.features});
    expect_whole_groups("linear", "w", w);
  } else {
    expect_tensor("linear", "w", w, x.dtype(), {out.features, in.features});
  }
  expects(in.rows == out.rows, "linear: x and y must have the same number of rows");
  expect_compute_or_fp32("linear", "y", y, x.dtype());
  if (!bias.empty()) expect_tensor("linear", "bias", bias, x.dtype(), {out.features});
  const LinearProduct product{.rows = in.rows,
                              .n = out.features,
                              .k = in.features,
                              .compute = x.dtype(),
                              .weights = w.dtype(),
                              .output = y.dtype(),
                              .x = x.data(),
                              .w = w.data(),
                              .bias = bias.data(),
                              .y = y.data()};
  submit(stream, threads_, [=, this] {
    if (ByteProduct::possible(product) && (batch_invariant_ || prefers_byte_product(product))) {
      return byte_product_.run(product);
    }
    if (batch_invariant_ || prefers_row_product(product)) return row_product_.run(product);
    if (is_quantized(product.weights)) return panel_product_.run(product);
    matmul_.run({.m = in.rows,
                 .n = out.features,
                 .k = in.features,
                 .compute = x.dtype(),
                 .output = y.dtype(),
                 .accumulate = false,
                 .a = {x.data(), false},
                 .b = {w.data(), true},
                 .bias = bias.data(),
                 .c = y.data()});
  });
}

Dtype CpuOps::arrange(TensorView w, Dtype compute, Stream& stream) {
  const LinearProduct one{.rows = 1, .compute = compute, .weights = w.dtype()};
  const bool always_bytes = ByteProduct::possible(one) && (batch_invariant_ || !multiplies_tiles());
  const Dtype arranged = ByteProduct::interleaved(w);
  if (!always_bytes || arranged == w.dtype()) return w.dtype();
  submit(stream, threads_, [w] { ByteProduct::interleave(w); });
  return arranged;
}

void CpuOps::linear_backward_input(ConstTensorView dy, ConstTensorView w, TensorView dx,
                                   bool accumulate, Stream& stream) {
  expect_compute("linear_backward_input", "dy", dy);
  const Rows out = rows_of("linear_backward_input", dy);
  const Rows in = rows_of("linear_backward_input", dx);
  expect_tensor("linear_backward_input", "w", w, dy.dtype(), {out.features, in.features});
  expects(in.rows == out.rows, "linear_backward_input: dx and dy must have the same rows");
  expect_compute_or_fp32("linear_backward_input", "dx", dx, dy.dtype());
  expects(!accumulate || dx.dtype() == Dtype::kF32,
          "linear_backward_input: dx must be fp32 to accumulate into");
  submit(stream, threads_, [=, this] {
    matmul_.run({.m = in.rows,
                 .n = in.features,
                 .k = out.features,
                 .compute = dy.dtype(),
                 .output = dx.dtype(),
                 .accumulate = accumulate,
                 .a = {dy.data(), false},
                 .b = {w.data(), false},
                 .bias = nullptr,
                 .c = dx.data()});
  });
}

void CpuOps::add_weight_gradient(ConstTensorView dy, ConstTensorView x, TensorView dw) {
  matmul_.run({.m = dw.shape()[0],
               .n = dw.shape()[1],
               .k = rows_of("linear_backward_weight", dy).rows,
               .compute = dy.dtype(),
               .output = Dtype::kF32,
               .accumulate = true,
               .a = {dy.data(), true},
               .b = {x.data(), false},
               .bias = nullptr,
               .c = dw.data()});
}

void CpuOps::linear_backward_weight(ConstTensorView dy, ConstTensorView x, TensorView dw,
                                    TensorView dbias, Stream& stream) {
  expect_compute("linear_backward_weight", "dy", dy);
  const Rows out = rows_of("linear_backward_weight", dy);
  const Rows in = rows_of("linear_backward_weight", x);
  if (!dw.empty()) {
    expect_tensor("linear_backward_weight", "dw", dw, Dtype::kF32, {out.features, in.features});
  }
  expects(in.rows == out.rows && x.dtype() == dy.dtype(),
          "linear_backward_weight: x and dy must have the same rows and dtype");
  if (!dbias.empty()) {
    expect_tensor("linear_backward_weight", "dbias", dbias, Dtype::kF32, {out.features});
  }
  submit(stream, threads_, [=, this] {
    if (!dw.empty()) add_weight_gradient(dy, x, dw);
    visit_compute_dtype(dy.dtype(), [&]<typename T>(T) {
      add_column_sums(dy.as<T>(), out.rows, out.features, dbias.as<float>());
    });
  });
}

}  // namespace strata::cpu
