#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "launch/runtime_options.h"
#include "launch/stop_signals.h"
#include "parallel/context.h"

namespace strata {

/// What a job has while the body of run() executes: device, communicator and log. Built by run().
class Runtime {
 public:
  Runtime(std::unique_ptr<Device> device, std::unique_ptr<Communicator> communicator,
          const Binding& binding);

  Context context() noexcept { return {*device_, *communicator_, log_}; }
  Device& device() noexcept { return *device_; }
  Communicator& communicator() noexcept { return *communicator_; }
  Log& log() noexcept { return log_; }
  /// Rank 0 prints the line.
  void log(std::string_view line) { log_.info(line); }

  /// The cores this rank runs on, why, and how many threads compute there.
  const Binding& binding() const noexcept { return binding_; }

  /// Whether this rank was asked to stop (Ctrl-C, SIGTERM, SIGUSR1): end the step, commit, return.
  /// Ranks hear of it at different times: agree with communicator().max() before acting.
  bool stop_requested() const noexcept { return signals_.requested(); }

 private:
  Log log_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> communicator_;
  Binding binding_;
  StopSignals signals_;
};

/// Runs `body` on this rank and returns the exit status of the process.
///
/// Before the body: takes --strata.* out of argv (launch/runtime_options.h), binds to this rank's
/// share of the cores, starts the program over once if OpenMP must learn to wait passively, starts
/// MPI when mpirun launched the process, and makes device and communicator. So call it first thing
/// in main().
///
/// An exception of the body ends the whole job: its rank prints "[rank r] cause" and all ranks exit
/// with 2 for a UsageError, 1 for anything else. Objects of the body are destroyed before that;
/// those that wait for other ranks must abandon() the communicator first.
int run_job(int& argc, char** argv, const std::function<int(Runtime&)>& body,
            const RuntimeOptions& defaults = {});

/// The same for a program whose arguments are read: none of them is looked at.
int run_job(const std::function<int(Runtime&)>& body, const RuntimeOptions& options = {});

/// The first; a body that returns nothing means status 0.
template <typename Body>
int run(int& argc, char** argv, Body&& body, const RuntimeOptions& defaults = {}) {
  return run_job(
      argc, argv,
      [&body](Runtime& runtime) -> int {
        if constexpr (std::is_void_v<std::invoke_result_t<Body&, Runtime&>>) {
          body(runtime);
          return 0;
        } else {
          return body(runtime);
        }
      },
      defaults);
}

}  // namespace strata
