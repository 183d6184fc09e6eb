#pragma once

#include "core/cpu/row_product.h"

// What products of quantised weights have around their sums.

namespace strata::cpu {

/// Elements of fp32, bf16 or fp16 in fp32. By the calling thread.
void to_floats(Dtype dtype, const void* from, std::int64_t n, float* to);

/// y[row + r, column + c] = sums[r, c] + bias[column + c] for rows x columns sums, whose rows are
/// `stride` apart. By the calling thread.
void write_sums(const LinearProduct& product, const float* sums, std::int64_t stride,
                std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns);

}  // namespace strata::cpu
