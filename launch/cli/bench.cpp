#include <fmt/format.h>

#include <memory>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launch/cli/bench_options.h"
#include "launch/cli/bench_targets.h"
#include "launch/cli/command_line.h"

namespace strata::cli {
namespace {

int run_target(const BenchOptions& options, Runtime& runtime) {
  const int ranks = runtime.communicator().size();
  const bool collectives = options.target == BenchTarget::kCollectives;
  if (collectives && ranks == 1) {
    throw UsageError(
        "bench collectives measures what travels between ranks: start it with mpirun -n 2 strata "
        "bench collectives");
  }
  if (!collectives && ranks > 1) {
    throw UsageError("this benchmark measures a whole machine: start it without mpirun");
  }
  switch (options.target) {
    case BenchTarget::kIo:
      return bench_io(options, runtime);
    case BenchTarget::kMemory:
      return bench_memory(options, runtime);
    case BenchTarget::kMatmul:
      return bench_matmul(options, runtime);
    case BenchTarget::kAdamW:
      return bench_adamw(options, runtime);
    case BenchTarget::kGenerate:
      return bench_generate(options, runtime);
    case BenchTarget::kCollectives:
      return bench_collectives(options, runtime);
  }
  return 0;
}

int run_bench(const BenchOptions& options) {
  return run_job([&options](Runtime& runtime) { return run_target(options, runtime); });
}

}  // namespace

int bench_threads(const BenchOptions& options, const Runtime& runtime) {
  return options.threads > 0 ? static_cast<int>(options.threads)
                             : runtime.binding().compute_threads;
}

void keep(const MachineProfile& measured, const BenchOptions& options, Runtime& runtime) {
  if (runtime.communicator().rank() != 0) return;
  if (options.threads > 0 && options.threads != runtime.binding().compute_threads) return;
  try {
    save_machine_profile(machine_profile_path(), measured);
  } catch (const Error& error) {
    runtime.log().warn(fmt::format("the figures were not kept: {}", error.what()));
  }
}

void add_bench(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand(
      "bench", "Measure what the machine can do beside what Strata does, and keep the figures");
  add_bench_flags(*command, *options);
  command->callback([options, &chosen] {
    check(*options);
    chosen = [options] { return run_bench(*options); };
  });
}

}  // namespace strata::cli
