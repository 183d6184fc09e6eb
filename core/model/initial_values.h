#pragma once

#include <cstdint>
#include <span>

#include "core/model/parameter.h"

namespace strata {

/// values[i] = element `first + i` of a fresh parameter. Depends on seed, name and position only,
/// so any rank can make any range in any order, on any number of threads (OpenMP), with the same
/// bits.
/// @pre first + values.size() <= numel
void initial_values(const ParameterSpec& parameter, std::uint64_t seed, std::int64_t first,
                    std::span<float> values);

}  // namespace strata
