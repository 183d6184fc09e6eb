#pragma once

namespace strata {

/// While it lives, SIGINT, SIGTERM and SIGUSR1 ask the job to stop instead of ending the process; a
/// second SIGINT or SIGTERM ends it at once, with the signal's own effect. One at a time per
/// process.
///
/// mpirun forwards SIGUSR1 to all ranks and leaves them alive: `kill -USR1` of mpirun, or Slurm's
/// --signal=USR1, is the way to stop in time. After Ctrl-C, mpirun kills its ranks a second later.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// On this rank only; ranks hear of it at different times and must agree (Communicator::max).
  bool requested() const noexcept;
};

}  // namespace strata
