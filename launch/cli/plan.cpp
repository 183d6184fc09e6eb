#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/model/config.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/pattern_flags.h"
#include "launch/cli/placement.h"
#include "launch/cli/plan_options.h"
#include "launch/cli/print_json.h"
#include "launch/cli/sequence_length.h"
#include "launch/cli/train_options.h"
#include "launch/plan_report.h"

namespace strata::cli {
namespace {

constexpr double kTera = 1e12;
/// Parameters from which it is news that a model does not fit into memory.
constexpr double kLargeModel = 1e10;

ModelConfig chosen_config(const PlanOptions& options) {
  if (!options.preset.empty()) return preset(options.preset);
  return read_config(options.model / "config.json");
}

/// --tokens as micro-batches of at most --per_device_train_batch_size sequences.
StepShape shape_of_tokens(const PlanOptions& options, std::int64_t length) {
  const std::int64_t unit = length * options.ranks;
  if (options.tokens % unit != 0) {
    throw UsageError(
        fmt::format("--tokens: {} is not a multiple of --sequence_length {} x {} ranks = {}; use "
                    "{}",
                    options.tokens, length, options.ranks, unit,
                    std::max<std::int64_t>(1, options.tokens / unit) * unit));
  }
  const std::int64_t sequences = options.tokens / unit;
  std::int64_t together = std::min(options.per_device_train_batch_size, sequences);
  while (sequences % together != 0) --together;
  if (sequences / together > (1 << 20)) {
    throw UsageError(fmt::format("--tokens: {} are over a million micro-batches", options.tokens));
  }
  return {static_cast<int>(sequences / together), together, length};
}

StepShape chosen_shape(const PlanOptions& options, const ModelConfig& config) {
  const std::int64_t length = chosen_sequence_length(options.sequence_length, config);
  if (options.tokens > 0) return shape_of_tokens(options, length);
  return {static_cast<int>(options.gradient_accumulation_steps),
          options.per_device_train_batch_size, length};
}

std::optional<double> figure(const std::optional<std::uint64_t>& bytes) {
  if (!bytes) return std::nullopt;
  return static_cast<double>(*bytes);
}

RateOverrides overrides_of(const MachineOptions& machine) {
  RateOverrides overrides{.read = figure(machine.read_bandwidth),
                          .write = figure(machine.write_bandwidth),
                          .mixed = figure(machine.mixed_bandwidth),
                          .memory = figure(machine.memory_bandwidth),
                          .link = figure(machine.link_bandwidth),
                          .operations = {}};
  if (machine.teraflops > 0) overrides.operations = machine.teraflops * kTera;
  return overrides;
}

/// A plan may be for a machine that is not this one: where --dram or --swap were left open and this
/// machine's own do not do, they become the smallest that do, and the plan says so.
void open_budgets(const PlanOptions& options, PlanSubject& subject,
                  std::vector<std::string>& notes) {
  if (options.placement.dram) return;
  const PlanMaterial material(subject);
  const std::uint64_t here = *subject.placement.dram_bytes;
  if (smallest_dram(material.input(subject.placement)) <= here) return;
  if (subject.placement.swap.empty()) {
    subject.placement.swap = {{.path = "DIR", .weight = 1}};
    notes.push_back(fmt::format(
        "without --swap it does not fit into the {} a rank has here: planned with a swap "
        "directory, --swap DIR",
        format_bytes(here)));
  }
  const std::uint64_t needed = smallest_dram(material.input(subject.placement));
  if (needed <= here) return;
  subject.placement.dram_bytes = needed;
  notes.push_back(
      fmt::format("a rank has {} here, which is too little: planned with the smallest --dram that "
                  "works",
                  format_bytes(here)));
}

std::string joined(const PlacementRequest& placement) {
  std::string text;
  for (const SwapDirectory& directory : placement.swap) {
    text += (text.empty() ? "" : ",") + directory.path;
  }
  return text;
}

/// " --flag value" for each flag that a run needs, but for those that its configuration has.
class FlagText {
 public:
  explicit FlagText(const ConfigChoices& config) : config_(config) {
    if (!config.file.empty()) text_ = " --config " + config.file.string();
  }

  template <typename Value>
  void add(const char* flag, const Value& value) {
    if (!config_.sets(flag)) text_ += fmt::format(" {} {}", flag, value);
  }
  /// Also what the configuration has: a section of its own each.
  void add_place(const char* section, Place chosen) {
    if (chosen == Place::kAuto) return;
    text_ += fmt::format(" --place {}={}", section, chosen == Place::kDram ? "dram" : "swap");
  }
  const std::string& text() const { return text_; }

 private:
  const ConfigChoices& config_;
  std::string text_;
};

void add_placement(const PlacementOptions& options, const PlacementRequest& placement,
                   FlagText& flags) {
  flags.add("--dram", size_flag(*placement.dram_bytes));
  if (!placement.swap.empty()) flags.add("--swap", joined(placement));
  if (placement.swap_bytes) flags.add("--swap-capacity", *placement.swap_bytes);
  if (placement.compute != Dtype::kBf16) flags.add("--compute", name(placement.compute));
  if (!placement.residency) flags.add("--residency", "none");
  if (placement.update == UpdateTiming::kFused) {
    flags.add("--update", "fused");
    flags.add("--clip", "previous");
  }
  if (placement.activations == strata::Place::kDram) flags.add("--activations", "dram");
  if (placement.activations == strata::Place::kSwap) flags.add("--activations", "swap");
  flags.add_place("hi", options.place.hi);
  flags.add_place("lo", options.place.lo);
  flags.add_place("m", options.place.m);
  flags.add_place("v", options.place.v);
  flags.add_place("gradients", options.place.gradients);
  flags.add_place("weights", options.place.weights);
  if (placement.stage != 3) flags.add("--stage", placement.stage);
  if (options.io_engine == IoEngineOptions::Kind::kUring) flags.add("--io-engine", "uring");
  if (options.io_engine == IoEngineOptions::Kind::kThreads) flags.add("--io-engine", "threads");
  if (placement.prefetch_depth >= 0) flags.add("--prefetch-depth", placement.prefetch_depth);
}

std::string command_lines(const PlanOptions& options, const PlanSubject& subject) {
  std::string text;
  const std::string model = options.preset.empty() ? options.model.string() : options.preset;
  if (!options.preset.empty()) {
    text += fmt::format("strata init --preset {} --out {}\n", model, model);
  }
  FlagText flags(options.config);
  flags.add("--per_device_train_batch_size", subject.shape.sequences);
  flags.add("--gradient_accumulation_steps", subject.shape.micro_batches);
  flags.add("--sequence_length", subject.shape.sequence_length);
  if (options.optim != OptimizerKind::kAdamW) {
    for (const auto& [name, kind] : optimizer_choices()) {
      if (kind == options.optim) flags.add("--optim", name);
    }
  }
  if (options.momentum > 0) flags.add("--momentum", options.momentum);
  if (options.dropout.from_config) flags.add("--dropout", "from-config");
  if (options.dropout.rate > 0) flags.add("--dropout", options.dropout.rate);
  add_placement(options.placement, subject.placement, flags);
  if (subject.ranks > 1) text += fmt::format("mpirun -n {} ", subject.ranks);
  return text +
         fmt::format("strata train --model {} --data FILE --out OUT{}{}\n", model, flags.text(),
                     pattern_flags(options.patterns));
}

StateSections state_of(const PlanOptions& options) {
  TrainerOptions trainer;
  trainer.optimizer = options.optim;
  trainer.sgd.momentum = options.momentum;
  return make_update_rule(trainer)->state_sections();
}

PlanSubject subject_of(const PlanOptions& options, const std::vector<SwapDrive>& drives) {
  PlanSubject subject;
  subject.config = chosen_config(options);
  subject.dropout = chosen_dropout(subject.config, options.dropout);
  subject.frozen = frozen_parameters(subject.config, options.patterns);
  subject.name = options.preset.empty() ? options.model.string() : options.preset;
  subject.shape = chosen_shape(options, subject.config);
  subject.state = state_of(options);
  subject.ranks = static_cast<int>(options.ranks);
  subject.ranks_per_node = options.ranks_per_node > 0
                               ? static_cast<int>(std::min(options.ranks_per_node, options.ranks))
                               : subject.ranks;
  subject.placement = make_placement(options.placement, subject.ranks_per_node, drives);
  return subject;
}

/// As settle_batch() of train. --tokens says it all by itself.
PlanOptions settled(PlanOptions options) {
  if (options.tokens > 0) return options;
  BatchSizes batch{.train = options.train_batch_size,
                   .micro = options.per_device_train_batch_size,
                   .accumulation = options.gradient_accumulation_steps};
  settle_batch(options.config, batch, static_cast<int>(options.ranks));
  options.per_device_train_batch_size = batch.micro;
  options.gradient_accumulation_steps = batch.accumulation;
  return options;
}

nlohmann::ordered_json config_json(const ConfigChoices& config) {
  auto settings = nlohmann::ordered_json::array();
  for (const ConfigSetting& setting : config.settings) {
    settings.push_back({{"key", setting.key},
                        {"value", setting.shown},
                        {"default", setting.by_default},
                        {"flag", setting.flag},
                        {"means", setting.values}});
  }
  return {{"file", config.file.string()},
          {"settings", std::move(settings)},
          {"decay_everywhere", config.extras.decay_everywhere},
          {"ignored", config.ignored}};
}

int run_plan(const PlanOptions& given) {
  const PlanOptions options = settled(given);
  std::vector<std::string> notes;
  const std::string ignored = ignored_warning(options.config);
  if (!ignored.empty()) notes.push_back(ignored);
  const std::vector<SwapDrive> drives = examine_swap(options.placement, notes);
  PlanSubject subject = subject_of(options, drives);
  open_budgets(options, subject, notes);
  RateInputs rates = measured_rates(drives, notes);
  rates.overrides = overrides_of(options.machine);
  PlanReport report = make_plan_report(subject, rates);
  report.swap_free = free_swap_bytes(drives);
  report.endurance = options.machine.drive_endurance * kTera;
  report.notes = std::move(notes);
  try {
    check_swap_room(report.memory, subject.placement, subject.ranks_per_node, drives);
  } catch (const UsageError& error) {
    report.notes.emplace_back(error.what());
  }
  if (report.rates.any_assumed()) {
    report.notes.emplace_back("rates that are assumed or derived make the seconds rough");
  }
  const std::string commands = command_lines(options, subject);
  if (options.json) {
    auto json = nlohmann::ordered_json::parse(plan_json(report));
    if (!options.config.file.empty()) json["config"] = config_json(options.config);
    json["command"] = commands;
    print_json(json);
  } else {
    const bool large = report.parameters >= kLargeModel;
    const std::string understood = format_config(options.config);
    fmt::print("{}{}{}{}\n{}", understood, understood.empty() ? "" : "\n", format_plan(report),
               large ? format_memory_wall(report) : "", commands);
  }
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "Say what training a model will take: bytes, seconds, drives, and what binds");
  add_plan_flags(*command, *options);
  command->callback([options, &chosen] {
    check(*options);
    chosen = [options] { return run_plan(*options); };
  });
}

}  // namespace strata::cli
