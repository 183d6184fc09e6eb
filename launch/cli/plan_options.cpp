#include "launch/cli/plan_options.h"

#include <fmt/format.h>

#include <limits>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/model/config.h"
#include "launch/cli/flags.h"
#include "launch/cli/pattern_flags.h"
#include "launch/cli/train_options.h"

namespace strata::cli {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

void add_machine_flags(CLI::App& app, MachineOptions& machine) {
  const char* measured = "; default as strata bench measured it";
  const auto help = [measured](const char* what) { return fmt::format("{}{}", what, measured); };
  add_size(app, "--read-bandwidth", machine.read_bandwidth,
           help("bytes a second read from all drives of a node, e.g. 6GB"));
  add_size(app, "--write-bandwidth", machine.write_bandwidth,
           help("bytes a second written to all drives of a node"));
  add_size(app, "--mixed-bandwidth", machine.mixed_bandwidth,
           help("bytes a second read plus written when both run at once"));
  add_size(app, "--memory-bandwidth", machine.memory_bandwidth,
           help("bytes a second of DRAM of a node"));
  add_size(app, "--link-bandwidth", machine.link_bandwidth,
           help("bytes a second between ranks, per rank and direction"));
  add_real(app, "--teraflops", machine.teraflops, 0, 1e9,
           "10^12 floating-point operations a second of a rank's products; 0: as measured");
  add_real(app, "--drive-endurance", machine.drive_endurance, 0, 1e9,
           "terabytes written that the drives of a node are rated for; 0: unknown");
}

}  // namespace

void add_plan_flags(CLI::App& app, PlanOptions& options) {
  auto* model = add_path(app, "--model,-m", options.model, "DIR", "a directory with config.json");
  add_preset(app, options.preset, "a shape by name")->excludes(model);
  add_whole(app, "--ranks", options.ranks, 1, 1 << 20, "processes, one device each");
  add_whole(app, "--ranks-per-node", options.ranks_per_node, 0, 1 << 20, "0: all on one node");
  add_whole(app, "--tokens", options.tokens, 0, kMost,
            "tokens of a step over all ranks, instead of the batch flags; 0: from them");
  add_whole(app, "--per_device_train_batch_size", options.per_device_train_batch_size, 1, 1 << 20,
            "sequences a rank computes at once");
  add_whole(app, "--gradient_accumulation_steps", options.gradient_accumulation_steps, 1, 1 << 20,
            "micro-batches of a step");
  add_whole(app, "--train_batch_size", options.train_batch_size, 0, kMost,
            "sequences of a step over all ranks, checked against the other two; 0: their product");
  add_whole(app, "--sequence_length", options.sequence_length, 0, 1 << 24,
            "tokens of a sequence; 0: the smaller of 1024 and what the model allows");
  add_choice<OptimizerKind>(app, "--optim", options.optim, optimizer_choices(),
                            "the update rule, which decides what state there is");
  add_real(app, "--momentum", options.momentum, 0, 1, "of SGD; 0: none is kept");
  add_dropout(app, options.dropout);
  add_switch(app, "--json", options.json, "print one JSON object");
  add_pattern_flags(app, options.patterns);
  add_machine_flags(app, options.machine);
  add_placement_flags(app, options.placement);
  add_config_flag(app, options.config);
}

void check(const PlanOptions& options) {
  if (options.model.empty() && options.preset.empty()) {
    throw UsageError(fmt::format("--model DIR or --preset NAME is needed; presets are {}",
                                 fmt::join(preset_names(), ", ")));
  }
  if (!options.model.empty()) check_directory("--model", options.model);
  if (options.tokens > 0 && options.train_batch_size > 0) {
    throw UsageError(
        fmt::format("--tokens: {} and --train_batch_size {} both say how large a step "
                    "is; leave one of them out",
                    options.tokens, options.train_batch_size));
  }
  check_precision(options.placement);
  const std::int64_t per_node = options.ranks_per_node;
  if (per_node > 0 && options.ranks % per_node != 0) {
    throw UsageError(fmt::format("--ranks-per-node: {} ranks are not a multiple of {}",
                                 options.ranks, per_node));
  }
}

}  // namespace strata::cli
