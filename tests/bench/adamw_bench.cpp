// strata_adamw_bench [threads] [millions of parameters] [rounds]: the update against simple loops.
// Other work on the same cores shows in every figure; `chrt -f 10` keeps it away for the seconds
// this takes.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "optimizer/adamw_benchmark.h"

int main(int argc, char** argv) {
  strata::MemoryBenchmarkOptions options;
  if (argc > 1) options.threads = std::atoi(argv[1]);
  if (argc > 2) options.numel = std::atoll(argv[2]) * 1'000'000;
  if (argc > 3) options.rounds = std::atoi(argv[3]);
  try {
    const strata::AdamWBenchmark result = strata::measure_adamw(options);
    std::printf(
        "threads %d: triad %.1f, scale %.1f, sum %.1f GB/s; adamw %.1f GB/s, "
        "%.3f ns/parameter, %.2f of the better loop\n",
        options.threads, result.memory.triad, result.memory.scale, result.memory.sum,
        result.gigabytes_per_second, result.nanoseconds_per_parameter, result.fraction());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
