#include <fmt/format.h>

#include <algorithm>

#include "launch/cli/bench_targets.h"
#include "launch/cli/print_json.h"
#include "optimizer/adamw_benchmark.h"

namespace strata::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kGiga = 1e9;

/// A round of the loops alone takes about this long on two channels of memory; enough rounds for
/// the seconds asked for, and an odd number of them, since medians are reported.
MemoryBenchmarkOptions options_for(const BenchOptions& options, int threads) {
  constexpr double kRoundsPerSecond = 8;
  const int rounds = static_cast<int>(std::clamp(options.seconds * kRoundsPerSecond, 3.0, 1e4));
  return {.threads = threads, .rounds = rounds | 1};
}

Json loops_json(const MemoryBandwidth& memory) {
  return {{"triad_gb_per_second", memory.triad},
          {"scale_gb_per_second", memory.scale},
          {"sum_gb_per_second", memory.sum}};
}

std::string loops_text(const MemoryBandwidth& memory) {
  return fmt::format(
      "  triad, streaming stores {:>8.2f} GB/s\n  scale in place          {:>8.2f} GB/s\n"
      "  sum                     {:>8.2f} GB/s\n",
      memory.triad, memory.scale, memory.sum);
}

}  // namespace

int bench_memory(const BenchOptions& options, Runtime& runtime) {
  const int threads = bench_threads(options, runtime);
  const MemoryBandwidth memory = measure_memory(options_for(options, threads));
  keep({.memory = memory.best_loop() * kGiga, .memory_read = memory.sum * kGiga}, options, runtime);
  if (options.json) {
    Json json = loops_json(memory);
    json["threads"] = threads;
    print_json(json);
  } else {
    fmt::print("memory, {} threads\n{}", threads, loops_text(memory));
  }
  return 0;
}

int bench_adamw(const BenchOptions& options, Runtime& runtime) {
  const int threads = bench_threads(options, runtime);
  const AdamWBenchmark adamw = measure_adamw(options_for(options, threads));
  keep({.updates = kGiga / adamw.nanoseconds_per_parameter,
        .memory = adamw.memory.best_loop() * kGiga,
        .memory_read = adamw.memory.sum * kGiga},
       options, runtime);
  if (options.json) {
    print_json({{"threads", threads},
                {"nanoseconds_per_parameter", adamw.nanoseconds_per_parameter},
                {"gb_per_second", adamw.gigabytes_per_second},
                {"ceiling", loops_json(adamw.memory)},
                {"ceiling_gb_per_second", adamw.memory.best_loop()},
                {"fraction", adamw.fraction()}});
  } else {
    fmt::print(
        "AdamW, exact sections, {} threads\n  ours                    {:>8.2f} GB/s, {:.3f} ns per "
        "parameter\n{}  ours over the better loop that writes: {:.2f}\n",
        threads, adamw.gigabytes_per_second, adamw.nanoseconds_per_parameter,
        loops_text(adamw.memory), adamw.fraction());
  }
  return 0;
}

}  // namespace strata::cli
