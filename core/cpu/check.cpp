#include "core/cpu/check.h"

#include <fmt/format.h>

namespace strata::cpu {
namespace {

std::string describe(ConstTensorView view) {
  return fmt::format("{} of {}", view.shape().to_string(), name(view.dtype()));
}

}  // namespace

void expect_tensor(std::string_view operation, std::string_view operand, ConstTensorView view,
                   Dtype dtype, const Shape& shape) {
  if (view.dtype() == dtype && view.shape() == shape) return;
  throw Error(fmt::format("{}: {} is {}, expected {} of {}", operation, operand, describe(view),
                          shape.to_string(), name(dtype)));
}

void expect_shape(std::string_view operation, std::string_view operand, ConstTensorView view,
                  const Shape& shape) {
  if (view.shape() == shape) return;
  throw Error(fmt::format("{}: {} is {}, expected {}", operation, operand, describe(view),
                          shape.to_string()));
}

void expect_compute(std::string_view operation, std::string_view operand, ConstTensorView view) {
  for (const Dtype compute : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    if (view.dtype() == compute) return;
  }
  throw Error(
      fmt::format("{}: {} is {}, expected fp32, bf16 or fp16", operation, operand, describe(view)));
}

void expect_compute_or_fp32(std::string_view operation, std::string_view operand,
                            ConstTensorView view, Dtype compute) {
  if (view.dtype() == Dtype::kF32 || view.dtype() == compute) return;
  throw Error(fmt::format("{}: {} is {}, expected fp32 or {}", operation, operand, describe(view),
                          name(compute)));
}

void expect_whole_groups(std::string_view operation, std::string_view operand,
                         ConstTensorView view) {
  if (view.shape()[-1] % kGroupNumel == 0) return;
  throw Error(fmt::format("{}: {} is {}, whose rows are no multiple of {} long; keep it in bf16",
                          operation, operand, describe(view), kGroupNumel));
}

Rows rows_of(std::string_view operation, ConstTensorView view) {
  if (view.shape().rank() == 0) {
    throw Error(fmt::format("{}: a scalar has no rows", operation));
  }
  std::int64_t rows = 1;
  for (const std::int64_t dim : view.shape().dims().first(view.shape().dims().size() - 1)) {
    rows *= dim;
  }
  return {rows, view.shape()[-1]};
}

}  // namespace strata::cpu
