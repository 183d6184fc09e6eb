#include "launch/cli/bench_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/units.h"
#include "launch/cli/flags.h"

namespace strata::cli {
namespace {

void add_io_flags(CLI::App& app, BenchOptions& options) {
  add_path_list(app, "--swap", options.swap, "DIR[,DIR...]",
                "io: directories on the drives to measure");
  add_size(app, "--file-size", options.file_size, "io: bytes of the test file in each directory");
  add_size(app, "--block-size", options.block_size, "io: bytes of a transfer, 4 KiB to 64 MiB");
  add_whole(app, "--depth", options.depth, 1, 4096, "io: transfers in flight");
  add_real(app, "--read-share", options.read_share, 0, 1,
           "io: share of reads in the bytes of the mixed run; default that of an exact step");
  add_switch(app, "--sweep", options.sweep,
             "io: try block sizes from 16 KiB to 8 MiB x depths x engines and keep the best; "
             "matmul: layers of 162M, 406M and 1.3B models at 256 to 2048 rows");
  add_io_engine(app, options.io_engine, "io: auto is io_uring where the kernel allows it");
}

}  // namespace

void add_bench_flags(CLI::App& app, BenchOptions& options) {
  add_choice<BenchTarget>(app, "target", options.target,
                          {{"io", BenchTarget::kIo},
                           {"memory", BenchTarget::kMemory},
                           {"matmul", BenchTarget::kMatmul},
                           {"adamw", BenchTarget::kAdamW},
                           {"collectives", BenchTarget::kCollectives},
                           {"generate", BenchTarget::kGenerate}},
                          "what to measure")
      ->required();
  add_real(app, "--seconds", options.seconds, 0.1, 3600, "of each measurement");
  add_switch(app, "--json", options.json, "print one JSON object");
  add_io_flags(app, options);
  add_whole(app, "--threads", options.threads, 0, 4096, "0: every core this process may use");
  add_preset(app, options.preset, "matmul: whose products");
  add_whole(app, "--sequence_length", options.sequence_length, 1, 1 << 24,
            "matmul: tokens of a sequence");
  add_whole(app, "--sequences", options.sequences, 1, 1 << 20,
            "matmul: sequences of a micro-batch");
  add_choice<Dtype>(app, "--compute", options.compute,
                    {{"bf16", Dtype::kBf16}, {"fp32", Dtype::kF32}},
                    "matmul: type of the operands; fp16 is multiplied in fp32");
  add_generate_flags(app, options.generate);
}

void check(const BenchOptions& options) {
  if (options.target == BenchTarget::kGenerate) check(options.generate);
  if (options.target != BenchTarget::kIo) return;
  if (options.swap.empty())
    throw UsageError("--swap: bench io needs a directory on the drive to measure");
  for (const auto& path : options.swap) check_directory("--swap", path);
  if (options.block_size < (4u << 10) || options.block_size > (64u << 20) ||
      options.block_size % kIoAlignment != 0) {
    throw UsageError(fmt::format("--block-size: {} is not a multiple of 4 KiB from 4 KiB to 64 MiB",
                                 format_bytes(options.block_size)));
  }
  if (options.file_size < options.block_size) {
    throw UsageError(fmt::format("--file-size: {} is less than one block of {}",
                                 format_bytes(options.file_size),
                                 format_bytes(options.block_size)));
  }
}

}  // namespace strata::cli
