#pragma once

// Internal: what each target of `strata bench` does. Each measures, prints a table or with --json
// one object, and keeps the figures for `strata plan` and `strata train`.

#include <string>

#include "launch/cli/bench_options.h"
#include "launch/runtime.h"
#include "parallel/machine_profile.h"

namespace strata::cli {

int bench_io(const BenchOptions& options, Runtime& runtime);
int bench_memory(const BenchOptions& options, Runtime& runtime);
int bench_adamw(const BenchOptions& options, Runtime& runtime);
int bench_matmul(const BenchOptions& options, Runtime& runtime);
int bench_generate(const BenchOptions& options, Runtime& runtime);
/// Collective: every rank calls it, rank 0 speaks.
int bench_collectives(const BenchOptions& options, Runtime& runtime);

/// Threads to measure with: --threads, or one per core of this rank.
int bench_threads(const BenchOptions& options, const Runtime& runtime);

/// Saves the figures, unless they are of fewer threads than the machine has: plans are made for all
/// of them. A profile that cannot be written is a warning, not an error.
void keep(const MachineProfile& measured, const BenchOptions& options, Runtime& runtime);

}  // namespace strata::cli
