#pragma once

#include <cstdint>

namespace strata {

/// How much to measure. The defaults take about 0.9 GB of memory and a few seconds.
struct MemoryBenchmarkOptions {
  int threads = 1;                             ///< OpenMP threads
  std::int64_t numel = std::int64_t{1} << 25;  ///< floats per array; sections of as many parameters
  int rounds = 9;                              ///< of which medians are reported
};

/// What DRAM gives simple loops over arrays far larger than the caches, in GB/s (1e9 bytes). Every
/// byte counts once where it is read and once where it is written; no write-allocate traffic is
/// added.
struct MemoryBandwidth {
  double triad = 0.0;  ///< a = b + factor * c with streaming stores: 12 bytes per element
  double scale = 0.0;  ///< a *= factor in place: 8 bytes per element
  double sum = 0.0;    ///< reads only: 4 bytes per element
  double best_loop() const noexcept { return triad > scale ? triad : scale; }
};

/// AdamW over `exact` sections with bf16 gradients. Per parameter it reads 14 bytes (hi 2, lo 2, m
/// 4, v 4, gradient 2) and writes 12 (hi, lo, m, v): 26 in all.
struct AdamWBenchmark {
  static constexpr int kBytesPerParameter = 26;
  MemoryBandwidth memory;  ///< measured in turn with the update
  double gigabytes_per_second = 0.0;
  double nanoseconds_per_parameter = 0.0;  ///< wall time
  double fraction() const noexcept { return gigabytes_per_second / memory.best_loop(); }
};

/// Both block, allocate what they touch, and spread pages over the NUMA nodes of the threads that
/// use them. Medians over `rounds`, the loops taking turns, so that a disturbance hits all of them
/// alike.
/// @throws UsageError if an option is out of range, Error if memory does not suffice
MemoryBandwidth measure_memory(const MemoryBenchmarkOptions& options);
AdamWBenchmark measure_adamw(const MemoryBenchmarkOptions& options);

}  // namespace strata
