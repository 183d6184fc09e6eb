#pragma once

#include "core/tensor.h"

namespace strata {

/// to[i] = from[i], fp32 to fp32, bf16 or fp16 (nearest, ties to even), in host memory on the
/// caller's thread.
void round_to(ConstTensorView from, TensorView to);

/// sum[i] += from[i], fp32, likewise.
void add_to(ConstTensorView from, TensorView sum);

}  // namespace strata
