#pragma once

#include <chrono>

#include "launch/core_binding.h"
#include "parallel/mpi/mpi_communicator.h"

namespace strata {

/// How a job runs on its machines, as opposed to what it computes.
struct RuntimeOptions {
  BindMode bind = BindMode::kAuto;
  int threads = 0;  ///< of the compute team; 0: one per core this rank is bound to
  std::chrono::milliseconds timeout = std::chrono::seconds(600);  ///< for one rank to come
  MpiRoute collectives = MpiRoute::kAuto;
  /// What products give a row does not depend on the others (make_cpu_device()). No argument.
  bool batch_invariant = false;
};

/// Takes the arguments that start with "--strata." out of argv, keeping the order of the rest and
/// the null at its end:
///
///     --strata.bind=auto|keep     --strata.threads=N
///     --strata.timeout=SECONDS    --strata.collectives=auto|shared|messages
///
/// Everything else is `defaults`. @throws UsageError naming an argument that is none of these
RuntimeOptions take_runtime_options(int& argc, char** argv, const RuntimeOptions& defaults = {});

}  // namespace strata
