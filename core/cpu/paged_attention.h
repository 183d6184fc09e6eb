#pragma once

#include <span>

#include "core/cpu/row_product.h"
#include "core/ops.h"

namespace strata::cpu {

/// Ops::paged_attention on this thread and OpenMP's team, with the kernels of choice. Blocks until
/// y is written. @pre the arguments are what that operation takes
void attend_over_pages(const AttentionShape& shape, const PagedKv& kv,
                       std::span<const SequenceRows> sequences, ConstTensorView q, TensorView y,
                       RowProduct::Kernels kernels);

}  // namespace strata::cpu
