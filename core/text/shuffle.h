#pragma once

#include <cstdint>

namespace strata {

/// Place `index` of a permutation of [0, count) that depends on `seed` and `epoch` only. Needs no
/// memory.
std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t seed,
                      std::int64_t epoch);

}  // namespace strata
