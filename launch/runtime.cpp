#include "launch/runtime.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "launch/mpi_session.h"
#include "launch/restart.h"

namespace strata {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUse = 2;

struct Failure {
  std::string cause;
  int status;
};

// @pre called while an exception is handled
Failure current_failure() {
  try {
    throw;
  } catch (const UsageError& error) {
    return {error.what(), kWrongUse};
  } catch (const std::exception& error) {
    return {error.what(), kFailed};
  } catch (...) {
    return {"an exception that is no std::exception", kFailed};
  }
}

void print(const std::string& who, const Failure& failure) {
  std::fflush(stdout);
  // One write, so that lines of several ranks do not mix.
  const std::string line = fmt::format("[{}] {}\n", who, failure.cause);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

// What all ranks were told wrong, all ranks complain about: rank 0 has the word, and mpirun ends
// the others with SIGTERM before they repeat it. A rank that is alone with its complaint speaks
// later.
void let_the_first_speak(bool first, const Failure& failure) {
  if (first || failure.status != kWrongUse) return;
  std::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(std::chrono::seconds(3));
}

/// Rounds that a waiting OpenMP thread spins before it sleeps, 25 ns each: as long as small loops
/// follow each other. Without, a pass of one token through llama-1b took 1.08 times as long.
constexpr const char* kSpinRounds = "4000";

// Binds, and gets the OpenMP runtime to wait passively, but for a moment: a team that spins takes
// cores from the lanes and the other teams (a small loop every 4 ms costs 6 ms of processor time
// instead of 0.2 on two cores). It reads the environment when it is loaded, hence the restart,
// which is not possible any more when the caller has started MPI.
Binding prepare_process(const RuntimeOptions& options) {
  Binding binding = bind_to_share(options.bind);
  if (options.threads > 0) binding.compute_threads = options.threads;
  if (MpiSession::is_initialized()) return binding;
  std::vector<std::pair<std::string, std::string>> variables{
      {"OMP_NUM_THREADS", std::to_string(binding.compute_threads)}};
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    variables.emplace_back("OMP_WAIT_POLICY", "passive");
    variables.emplace_back("GOMP_SPINCOUNT", kSpinRounds);
  }
  binding.description = restart_with(variables, binding.description);
  return binding;
}

std::unique_ptr<Communicator> make_communicator(const MpiSession& session,
                                                const RuntimeOptions& options) {
  if (session.size() == 1) return make_self_communicator();
  return make_mpi_communicator(options.collectives, {.timeout = options.timeout});
}

// Ends all ranks. MPI calls must not overlap, so the lane is brought to rest first.
int fail(MpiSession& session, Communicator* communicator, const Failure& failure) {
  let_the_first_speak(session.rank() == 0, failure);
  print(fmt::format("rank {}", session.rank()), failure);
  if (communicator != nullptr) {
    communicator->abandon();
    try {
      communicator->stream().synchronize();
    } catch (...) {  // it fails because it was abandoned: the cause is already printed
    }
  }
  session.abort(failure.status);
  return failure.status;
}

// Before MPI tells the rank, the launcher's environment may: ranks that never joined MPI are ended
// by mpirun when the first of them exits.
// @pre called while an exception is handled
int fail_before_mpi() {
  const Failure failure = current_failure();
  const LocalRank local = local_rank();
  const std::optional<int> rank = local.launched ? launched_rank() : 0;
  let_the_first_speak(rank.value_or(local.rank) == 0, failure);
  print(rank ? fmt::format("rank {}", *rank) : fmt::format("local rank {}", local.rank), failure);
  return failure.status;
}

int run_in(MpiSession& session, const RuntimeOptions& options, const Binding& binding,
           const std::function<int(Runtime&)>& body) {
  std::optional<Runtime> runtime;
  int status = 0;
  try {
    runtime.emplace(make_cpu_device(binding.compute_threads, options.batch_invariant),
                    make_communicator(session, options), binding);
    status = body(*runtime);
    runtime->communicator().stream().synchronize();
  } catch (...) {
    return fail(session, runtime ? &runtime->communicator() : nullptr, current_failure());
  }
  return status;
}

}  // namespace

Runtime::Runtime(std::unique_ptr<Device> device, std::unique_ptr<Communicator> communicator,
                 const Binding& binding)
    : log_(communicator->rank()),
      device_(std::move(device)),
      communicator_(std::move(communicator)),
      binding_(binding) {}

int run_job(int& argc, char** argv, const std::function<int(Runtime&)>& body,
            const RuntimeOptions& defaults) {
  RuntimeOptions options;
  try {
    options = take_runtime_options(argc, argv, defaults);
  } catch (...) {
    return fail_before_mpi();
  }
  return run_job(body, options);
}

int run_job(const std::function<int(Runtime&)>& body, const RuntimeOptions& options) {
  std::optional<Binding> binding;
  std::optional<MpiSession> session;
  try {
    binding = prepare_process(options);
    session.emplace();
  } catch (...) {
    return fail_before_mpi();
  }
  const int status = run_in(*session, options, *binding, body);
  session->finish();
  return status;
}

}  // namespace strata
