#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace strata {

/// Philox 4x32-10 (Salmon et al., SC 2011): 128 random bits for each (key, counter), in any order,
/// on any rank. There is no generator to carry about, so numbers depend on what they are for and on
/// nothing else.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) noexcept;

/// A key of its own for everything that is named: FNV-1a of `name`, mixed with `seed`.
std::array<std::uint32_t, 2> random_key(std::uint64_t seed, std::string_view name) noexcept;

/// values[i] = normal number `first + i` of the tensor, mean 0, standard deviation `deviation`.
///
/// Numbers 2k and 2k + 1 are the cosine and sine branch of Box-Muller in double, on two 53-bit
/// uniforms of counter k, rounded to float once: the same whatever ranges a tensor is filled in.
void fill_normal(std::array<std::uint32_t, 2> key, std::uint64_t first, double deviation,
                 std::span<float> values) noexcept;

}  // namespace strata
