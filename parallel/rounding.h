#pragma once

#include "core/tensor.h"

namespace strata {

/// to[i] = from[i], fp32 to fp32, bf16 or fp16 (nearest, ties to even), in host memory on the
/// caller's thread.
void round_to(ConstTensorView from, TensorView to);

/// to[i] = values of `dtype` (fp32, bf16, fp16) that lie at `from`, which need not be aligned.
void round_to(const std::byte* from, Dtype dtype, TensorView to);

/// sum[i] += from[i], fp32, likewise.
void add_to(ConstTensorView from, TensorView sum);

}  // namespace strata
