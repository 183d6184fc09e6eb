#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "launch/cli/bench_generate_options.h"
#include "swap/io_engine.h"

namespace CLI {
class App;
}

namespace strata::cli {

enum class BenchTarget : std::uint8_t { kIo, kMemory, kMatmul, kAdamW, kCollectives, kGenerate };

/// What `strata bench` was asked for.
struct BenchOptions {
  BenchTarget target = BenchTarget::kIo;
  double seconds = 10;  ///< of each measurement
  bool json = false;

  // io
  std::vector<std::filesystem::path> swap;
  std::uint64_t file_size = 4ull << 30;
  std::uint64_t block_size = 1 << 20;
  std::int64_t depth = 64;
  double read_share = 14.0 / 26.0;  ///< of the bytes of the mixed run
  bool sweep = false;
  IoEngineOptions::Kind io_engine = IoEngineOptions::Kind::kAuto;

  // memory, matmul, adamw, collectives
  std::int64_t threads = 0;         ///< 0: every core this process may use
  std::string preset = "gpt-162m";  ///< whose products matmul measures
  std::int64_t sequence_length = 256;
  std::int64_t sequences = 2;
  Dtype compute = Dtype::kBf16;

  GenerateBenchOptions generate;
};

/// Declares the flags; `options` must outlive the parsing.
void add_bench_flags(CLI::App& app, BenchOptions& options);

/// @throws UsageError for what cannot be measured, e.g. io without --swap
void check(const BenchOptions& options);

}  // namespace strata::cli
