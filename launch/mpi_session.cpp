#include "launch/mpi_session.h"

#include <mpi.h>

#include "core/error.h"
#include "launch/core_binding.h"
#include "parallel/mpi/mpi_group.h"

namespace strata {

bool MpiSession::is_initialized() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  return initialized != 0;
}

MpiSession::MpiSession() {
  int provided = MPI_THREAD_SINGLE;
  if (is_initialized()) {
    mpi::check(MPI_Query_thread(&provided), "tell its level of thread support");
  } else if (local_rank().launched) {
    mpi::check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "start");
    owns_ = true;
  } else {
    return;
  }
  active_ = true;
  expects(
      provided >= MPI_THREAD_SERIALIZED,
      "Strata needs MPI with MPI_THREAD_SERIALIZED: call MPI_Init_thread, or leave it to run()");
  mpi::check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "tell the rank");
  mpi::check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "tell the number of ranks");
}

void MpiSession::finish() {
  if (owns_) mpi::check(MPI_Finalize(), "finish");
  owns_ = false;
  active_ = false;
}

void MpiSession::abort(int code) noexcept {
  if (active_) MPI_Abort(MPI_COMM_WORLD, code);
}

}  // namespace strata
