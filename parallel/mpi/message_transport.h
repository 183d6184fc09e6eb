#pragma once

#include <memory>

#include "parallel/mpi/mpi_group.h"
#include "parallel/transport.h"

namespace strata::mpi {

/// Collectives in nonblocking MPI messages, for ranks on several nodes.
///
/// Waiting polls with short sleeps, so a lane that waits leaves its core to the compute team. A
/// call that fails may leave messages in flight: their operands are safe to free once no MPI call
/// follows.
std::unique_ptr<Transport> make_message_transport(Group group, const CollectiveOptions& options);

}  // namespace strata::mpi
