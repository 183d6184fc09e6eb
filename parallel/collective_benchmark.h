#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "parallel/communicator.h"

namespace strata {

/// How fast one size of block travels. Rates are bytes of the whole block (all ranks' parts
/// together) per second of the slowest rank, in units of 10^9; with P ranks a rank receives (P-1)/P
/// of them.
struct CollectiveRates {
  std::size_t block_bytes = 0;
  double all_gather = 0;
  double reduce_scatter = 0;
  double memcpy =
      0;  ///< the same bytes copied by every rank at the same time: what the memory allows
};

/// Measures every size for about `seconds` per figure. Blocks; every rank calls it with the same
/// arguments and gets the same figures. Sizes are rounded down to equal parts, and hold two blocks
/// of the largest size in memory.
std::vector<CollectiveRates> measure_collectives(Communicator& communicator,
                                                 std::span<const std::size_t> block_bytes,
                                                 double seconds);

}  // namespace strata
