#include "core/random.h"

#include <cmath>
#include <cstddef>
#include <numbers>

namespace strata {
namespace {

constexpr std::uint32_t low(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
constexpr std::uint32_t high(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;

/// Steele, Lea and Flood's finaliser: every input bit reaches every output bit.
constexpr std::uint64_t mix(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

/// In (0, 1]: its logarithm is finite.
double uniform(std::uint32_t low_word, std::uint32_t high_word) {
  const std::uint64_t word = (static_cast<std::uint64_t>(high_word) << 32) | low_word;
  return static_cast<double>((word >> 11) + 1) * 0x1.0p-53;
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = static_cast<std::uint64_t>(counter[0]) * 0xd2511f53u;
    const std::uint64_t second = static_cast<std::uint64_t>(counter[2]) * 0xcd9e8d57u;
    counter = {high(second) ^ counter[1] ^ key[0], low(second), high(first) ^ counter[3] ^ key[1],
               low(first)};
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return counter;
}

std::array<std::uint32_t, 2> random_key(std::uint64_t seed, std::string_view name) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  const std::uint64_t key = mix(hash + mix(seed + kGolden));
  return {low(key), high(key)};
}

std::uint64_t random_key(std::uint64_t seed,
                         std::initializer_list<std::uint64_t> numbers) noexcept {
  std::uint64_t key = mix(seed + kGolden);
  for (const std::uint64_t number : numbers) key = mix(key + kGolden * (number + 1));
  return key;
}

RandomRow random_row(std::uint64_t key, std::uint64_t row) noexcept {
  const std::uint64_t word = mix(key + kGolden * (row + 1));
  return {low(word), high(word)};
}

void fill_normal(std::array<std::uint32_t, 2> key, std::uint64_t first, double deviation,
                 std::span<float> values) noexcept {
  std::size_t done = 0;
  while (done < values.size()) {
    const std::uint64_t element = first + done;
    const std::uint64_t pair = element / 2;
    const auto bits = philox({low(pair), high(pair), 0, 0}, key);
    const double radius = deviation * std::sqrt(-2 * std::log(uniform(bits[0], bits[1])));
    const double angle = 2 * std::numbers::pi * uniform(bits[2], bits[3]);
    if (element % 2 == 0) values[done++] = static_cast<float>(radius * std::cos(angle));
    if (done < values.size()) values[done++] = static_cast<float>(radius * std::sin(angle));
  }
}

}  // namespace strata
