#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace strata {

/// A shard group of one on every rank of `world`: nothing is cut, gathers are nothing, and a
/// reduced gradient is the sum over the whole world, everywhere. ZeRO stage 0. Runs on world's
/// lane.
std::unique_ptr<Communicator> make_replicated_communicator(Communicator& world);

}  // namespace strata
