#pragma once

#include <cstddef>
#include <span>

namespace strata {

/// result[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ..., in fp32, for i < numel.
/// The order is the whole point: it makes sums independent of who computes them and how they are
/// cut. `result` may be one of the parts. @pre at least one part
void ordered_sum(std::span<const float* const> parts, float* result, std::size_t numel);

}  // namespace strata
