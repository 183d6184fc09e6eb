#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
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

/// The same for everything that is numbered, say by step, block and operation.
std::uint64_t random_key(std::uint64_t seed, std::initializer_list<std::uint64_t> numbers) noexcept;

/// What random_word() needs to know of one row of a matrix.
struct RandomRow {
  std::uint32_t first = 0;
  std::uint32_t second = 0;
};
RandomRow random_row(std::uint64_t key, std::uint64_t row) noexcept;

/// A random word for each column of a row, in any order: for masks, which take a word per element
/// and ask no more of it than to look random. Ten operations on 32 bits that vectorise, two of them
/// multiplications, where philox() needs five wide ones. It is Wellons' lowbias32 of the column
/// with the row in two places: in one alone, rows would be shuffles of each other.
[[gnu::always_inline]] inline std::uint32_t random_word(RandomRow row,
                                                        std::uint32_t column) noexcept {
  std::uint32_t word = column ^ row.first;
  word = (word ^ (word >> 16)) * 0x7feb352du;
  word ^= row.second;
  word = (word ^ (word >> 15)) * 0x846ca68bu;
  return word ^ (word >> 16);
}

/// values[i] = normal number `first + i` of the tensor, mean 0, standard deviation `deviation`.
///
/// Numbers 2k and 2k + 1 are the cosine and sine branch of Box-Muller in double, on two 53-bit
/// uniforms of counter k, rounded to float once: the same whatever ranges a tensor is filled in.
void fill_normal(std::array<std::uint32_t, 2> key, std::uint64_t first, double deviation,
                 std::span<float> values) noexcept;

}  // namespace strata
