#include "core/text/shuffle.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/random.h"

namespace strata {

/// A Feistel network permutes [0, 4^half) for the smallest power that holds `count`; walking along
/// its cycle until a value falls below `count` permutes [0, count).
std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t seed,
                      std::int64_t epoch) {
  expects(index >= 0 && index < count, "the index lies in the permutation");
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(count - 1)));
  const int half = std::max(1, (bits + 1) / 2);
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  const auto key = random_key(seed, "data order");
  const auto number = static_cast<std::uint64_t>(epoch);
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half, right = value & mask;
    for (std::uint32_t round = 0; round < 4; ++round) {
      const auto random =
          philox({static_cast<std::uint32_t>(right), round, static_cast<std::uint32_t>(number),
                  static_cast<std::uint32_t>(number >> 32)},
                 key);
      const std::uint64_t mixed = left ^ (random[0] & mask);
      left = right;
      right = mixed;
    }
    value = left << half | right;
  } while (value >= static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(value);
}

}  // namespace strata
