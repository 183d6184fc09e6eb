// A job with a Runtime that does what its first argument says; run by runtime_test.cpp.
#include <mpi.h>
#include <omp.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "launch/runtime.h"

namespace {

using namespace std::chrono_literals;

std::string mode;
std::vector<std::string> rest;

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void report(strata::Runtime& runtime) {
  const strata::Communicator& world = runtime.communicator();
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  const char* spins = std::getenv("GOMP_SPINCOUNT");
  std::string words;
  for (const std::string& word : rest) words += " " + word;
  say("this is rank " + std::to_string(world.rank()) + " of " + std::to_string(world.size()) +
      " on " + std::to_string(runtime.binding().cpus.size()) + " cores, threads " +
      std::to_string(omp_get_max_threads()) + ", policy " + (policy == nullptr ? "" : policy) +
      (spins == nullptr ? "" : " after a moment") + ", arguments" + words);
  runtime.log("only once: " + runtime.binding().description);
}

// The last rank fails while the others wait for it.
[[noreturn]] void fail_on_last_rank(strata::Runtime& runtime) {
  strata::Communicator& world = runtime.communicator();
  if (world.rank() == world.size() - 1) throw strata::Error("the drive is gone");
  world.barrier();
  std::abort();  // nobody may get here
}

// The last rank hangs; the others must notice.
void hang_on_last_rank(strata::Runtime& runtime) {
  strata::Communicator& world = runtime.communicator();
  if (world.rank() == world.size() - 1) raise(SIGSTOP);
  world.barrier();
}

int body(strata::Runtime& runtime) {
  if (mode == "report" || mode == "mpi-is-up") report(runtime);
  if (mode == "fail") fail_on_last_rank(runtime);
  if (mode == "hang") hang_on_last_rank(runtime);
  if (mode == "usage") throw strata::UsageError("no such model");
  if (mode == "status") return 7;
  if (mode == "stop") {
    raise(SIGUSR1);
    raise(SIGTERM);
    const double ranks = runtime.communicator().sum(runtime.stop_requested() ? 1 : 0);
    runtime.log("stopped ranks: " + std::to_string(static_cast<int>(ranks)));
  }
  if (mode == "stop-twice") {
    raise(SIGTERM);
    raise(SIGTERM);
    std::this_thread::sleep_for(60s);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  mode = argc > 1 ? argv[1] : "report";
  if (mode == "mpi-is-up") {
    int provided = MPI_THREAD_SINGLE;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  }
  const int status = strata::run(argc, argv, [&](strata::Runtime& runtime) {
    rest.assign(argv + 1, argv + argc);
    return body(runtime);
  });
  if (mode == "mpi-is-up") {
    int sum = 0;
    const int one = 1;
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    say("still up with " + std::to_string(sum));
    MPI_Finalize();
  }
  return status;
}
