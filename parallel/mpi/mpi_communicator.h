#pragma once

#include <memory>

#include "parallel/transport.h"

namespace strata {

/// How bytes travel between MPI ranks.
enum class MpiRoute {
  kAuto,      ///< shared memory when all ranks are on one node, else messages
  kShared,    ///< shared memory of the node
  kMessages,  ///< nonblocking MPI, polled by the lane with short sleeps
};

/// A communicator over all ranks of MPI_COMM_WORLD. Blocks; every rank calls it with the same
/// arguments.
///
/// Routes give the same bits. With kMessages all MPI calls after construction are made by the
/// communicator's lane; with kShared there are none. Destroy it before MPI_Finalize.
/// @pre MPI is initialised, with MPI_THREAD_SERIALIZED or more
/// @throws UsageError for kShared when the ranks are on several nodes
std::unique_ptr<Communicator> make_mpi_communicator(MpiRoute route = MpiRoute::kAuto,
                                                    const CollectiveOptions& options = {});

}  // namespace strata
