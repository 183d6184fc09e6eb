#pragma once

#include <string_view>

#include "core/tensor.h"

namespace strata::cpu {

/// @throws Error "rms_norm: w is [64] of fp32, expected [33] of bf16" when `view` is something
/// else. `operation` and `operand` name it for the reader of the message.
void expect_tensor(std::string_view operation, std::string_view operand, ConstTensorView view,
                   Dtype dtype, const Shape& shape);
/// The same for the shape alone.
void expect_shape(std::string_view operation, std::string_view operand, ConstTensorView view,
                  const Shape& shape);
/// @throws Error unless the dtype is fp32, bf16 or fp16
void expect_compute(std::string_view operation, std::string_view operand, ConstTensorView view);
/// @throws Error unless the dtype is fp32 or `compute`
void expect_compute_or_fp32(std::string_view operation, std::string_view operand,
                            ConstTensorView view, Dtype compute);
/// @throws Error unless rows of `view`, which is quantised, are whole groups
void expect_whole_groups(std::string_view operation, std::string_view operand,
                         ConstTensorView view);

/// Rows and features of a tensor [T, C]; leading dimensions count as rows, so [B, S, C] is fine.
struct Rows {
  std::int64_t rows;
  std::int64_t features;
};
Rows rows_of(std::string_view operation, ConstTensorView view);

}  // namespace strata::cpu
