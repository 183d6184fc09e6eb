#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace strata::cpu {

/// The elements of consecutive groups of kQ8 or kQ4, rounded to the nearest bf16; as
/// dequantize() of core/group_quantization.h gives them in fp32. Elements below the normal numbers
/// become zero. `to` has 128 bytes a group and no alignment.
/// @pre has_avx512_bf16() (core/cpu/row_kernels.h)
void dequantize_to_bf16(const std::byte* from, Dtype dtype, std::int64_t groups, std::byte* to);

}  // namespace strata::cpu
