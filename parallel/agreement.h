#pragma once

// Internal to trainer and generator. Not installed.

#include <cstdint>
#include <span>

#include "parallel/communicator.h"

namespace strata {

/// Compares what ranks could disagree about: a plan's hash, options. Collective.
/// @throws UsageError on all ranks if they were started with different ones
void expect_agreement(Communicator& communicator, std::span<const std::uint64_t> facts);

}  // namespace strata
