#include "launch/cli/train_options.h"

#include <fmt/format.h>

#include <limits>
#include <map>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launch/cli/flags.h"
#include "launch/cli/pattern_flags.h"

namespace strata::cli {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMostSequences = 1 << 20;
constexpr double kAnyReal = std::numeric_limits<double>::max();

void add_file_flags(CLI::App& app, TrainOptions& options) {
  add_path(app, "--model,-m", options.model, "DIR",
           "the model to train: config.json and safetensors")
      ->required();
  add_data_flags(app, options.data);
  add_path(app, "--out,--output_dir", options.out, "DIR", "gets the model and metrics.jsonl")
      ->required();
  add_switch(app, "--overwrite", options.overwrite,
             "write into an output directory that is not empty");
  add_paths(app, "--eval_data", options.eval_data, "FILE...",
            "files to evaluate on, instead of the end of --data");
  add_real(app, "--eval_fraction", options.eval_fraction, 0, 0.5,
           "share of --data, at its end, that is held out when there is no --eval_data");
  add_whole(app, "--eval_steps", options.eval_steps, 0, kMost,
            "steps between evaluations; 0: at the end only");
  add_whole(app, "--logging_steps", options.logging_steps, 1, kMost,
            "steps between step lines; metrics.jsonl has every step");
}

void add_batch_flags(CLI::App& app, TrainOptions& options) {
  add_whole(app, "--per_device_train_batch_size", options.per_device_train_batch_size, 1,
            kMostSequences, "sequences a rank computes at once");
  add_whole(app, "--gradient_accumulation_steps", options.gradient_accumulation_steps, 1,
            kMostSequences, "micro-batches of a step; costs no swap traffic");
  add_whole(app, "--train_batch_size", options.train_batch_size, 0, kMost,
            "sequences of a step over all ranks, checked against the other two; 0: their product");
  add_whole(app, "--sequence_length", options.sequence_length, 0, 1 << 24,
            "tokens of a sequence; 0: the smaller of 1024 and what the model allows");
  add_real(app, "--num_train_epochs", options.num_train_epochs, 0, kAnyReal,
           "passes over the data");
  add_whole(app, "--max_steps", options.max_steps, -1, kMost,
            "optimizer steps, instead of --num_train_epochs; -1: not given");
  add_whole(app, "--seed", options.seed, 0, kMost, "of shuffling and dropout");
}

void add_optimizer_flags(CLI::App& app, TrainOptions& options) {
  add_real(app, "--learning_rate", options.learning_rate, 0, kAnyReal, "its peak");
  add_choice<ScheduleKind>(app, "--lr_scheduler_type", options.lr_scheduler_type, schedule_kinds(),
                           "how the learning rate changes over the run");
  add_whole(app, "--warmup_steps", options.warmup_steps, 0, kMost,
            "steps over which the learning rate rises from 0");
  add_choice<OptimizerKind>(app, "--optim", options.optim, optimizer_choices(),
                            "the update rule; weight decay is a term of the gradient in adam and "
                            "sgd, and apart from it in adamw and lion");
  add_real(app, "--adam_beta1", options.adam_beta1, 0, 1, "decay of the first moment; also Lion's");
  add_real(app, "--adam_beta2", options.adam_beta2, 0, 1,
           "decay of the second moment; of Lion's momentum, where its paper has 0.99");
  add_real(app, "--adam_epsilon", options.adam_epsilon, 0, 1,
           "added to the root of the second moment");
  add_real(app, "--momentum", options.momentum, 0, 1, "of SGD");
  add_real(app, "--weight_decay", options.weight_decay, 0, kAnyReal,
           "of weights; norms and biases have none");
  add_real(app, "--max_grad_norm", options.max_grad_norm, 0, kAnyReal,
           "the global gradient norm is clipped to this; 0: no clipping");
  add_choice<ClipChoice>(app, "--clip", options.clip,
                         {{"exact", ClipChoice::kExact},
                          {"previous", ClipChoice::kPrevious},
                          {"none", ClipChoice::kNone}},
                         "by this step's norm, by the previous step's, or not at all");
}

/// With the names of DeepSpeed's keys.
void add_loss_scale_flags(CLI::App& app, LossScaleOptions& options) {
  add_real(app, "--loss_scale", options.loss_scale, 0, kAnyReal,
           "with --compute fp16, the factor on the loss; 0: dynamic, as the next five say");
  add_whole(app, "--initial_scale_power", options.initial_scale_power, 0, 100,
            "the first dynamic factor is 2 to this power");
  add_whole(app, "--loss_scale_window", options.window, 1, kMost,
            "steps without an overflow after which the factor doubles");
  add_whole(app, "--hysteresis", options.hysteresis, 1, kMost,
            "overflows until the factor is halved");
  add_switch(app, "--consecutive_hysteresis", options.consecutive_hysteresis,
             "every step without an overflow restores the hysteresis");
  add_real(app, "--min_loss_scale", options.min_loss_scale, 0, kAnyReal,
           "the least factor; an overflow with it ends the run");
}

void add_save_flags(CLI::App& app, SaveFlags& flags) {
  add_whole(app, "--save_steps", flags.save_steps, 0, kMost,
            "steps between models saved in checkpoint-STEP below --out; 0: at the end only");
  add_whole(app, "--save_total_limit", flags.save_total_limit, 0, kMost,
            "saved models that are kept, the newest and the best; 0: all");
  add_switch(app, "--load_best_model_at_end", flags.load_best_model_at_end,
             "the model in --out is the one with the lowest loss of all evaluations");
}

void add_run_flags(CLI::App& app, TrainOptions& options) {
  add_save_flags(app, options.save);
  add_choice<bool>(app, "--report_to", options.tensorboard,
                   {{"tensorboard", true}, {"none", false}},
                   "where curves go beside metrics.jsonl: TensorBoard events, or nowhere");
  add_path(app, "--logging_dir", options.logging_dir, "DIR",
           "gets the TensorBoard events instead of --out");
  add_switch(app, "--report", options.report,
             "write report.html at the end: plan, plots, and what bound the run");
  add_switch(app, "--trace", options.trace, "write trace.json for Perfetto: who did what when");
  add_switch(app, "--no_progress", options.no_progress, "no progress bar");
  add_choice<BindMode>(app, "--bind", options.bind,
                       {{"auto", BindMode::kAuto}, {"keep", BindMode::kKeep}},
                       "auto: a rank takes its share of the cores; keep: what mpirun chose");
}

}  // namespace

std::vector<std::pair<std::string, OptimizerKind>> optimizer_choices() {
  return {{"adamw", OptimizerKind::kAdamW},
          {"adam", OptimizerKind::kAdam},
          {"lion", OptimizerKind::kLion},
          {"sgd", OptimizerKind::kSgd}};
}

void add_train_flags(CLI::App& app, TrainOptions& options) {
  add_file_flags(app, options);
  add_batch_flags(app, options);
  add_optimizer_flags(app, options);
  add_loss_scale_flags(app, options.loss_scale);
  add_dropout(app, options.dropout);
  add_pattern_flags(app, options.patterns);
  add_run_flags(app, options);
  add_placement_flags(app, options.placement);
  add_config_flag(app, options.config);
}

void keep_settings(const CLI::App& command, TrainOptions& options) {
  options.settings = settings_of(command);
  for (const ConfigSetting& setting : options.config.settings) {
    if (setting.flag.empty()) options.settings.emplace_back(setting.key, setting.shown);
  }
}

void check(const TrainOptions& options) {
  check_directory("--model", options.model);
  check(options.data);
  check_files("--eval_data", options.eval_data);
  check_output("--out", options.out, options.overwrite);
  if (options.tensorboard && !options.logging_dir.empty()) {
    check_output("--logging_dir", options.logging_dir, options.overwrite);
  }
  if (options.max_steps == 0) throw UsageError("--max_steps: 0 steps train nothing; use 1 or more");
  if (options.max_steps < 0 && options.num_train_epochs == 0) {
    throw UsageError("--num_train_epochs: 0 epochs train nothing; use more, or --max_steps");
  }
  // DeepSpeed's schedules may end in their warm-up.
  if (options.save.load_best_model_at_end && options.eval_steps == 0) {
    throw UsageError(
        "--load_best_model_at_end compares evaluations; say how often with --eval_steps");
  }
  if (options.max_steps > 0 && options.warmup_steps > options.max_steps &&
      !is_deepspeed(options.lr_scheduler_type)) {
    throw UsageError(
        fmt::format("--warmup_steps: {} is more than --max_steps {}; the learning rate would "
                    "never reach its peak",
                    options.warmup_steps, options.max_steps));
  }
  if (options.adam_beta1 == 1 || options.adam_beta2 == 1) {
    throw UsageError("--adam_beta1, --adam_beta2: 1 never forgets; use a number below 1");
  }
  const bool exact_clip = options.clips() && options.clip == ClipChoice::kExact;
  if (options.placement.update == UpdateChoice::kFused && exact_clip) {
    throw UsageError(
        "--update fused knows the gradient norm too late to clip by it; add --clip previous or "
        "--clip none, or use --update lazy");
  }
  check(options.placement);
  if (options.placement.compute == Dtype::kF16) LossScaler(options.loss_scale);
}

void settle_batch(TrainOptions& options, int ranks) {
  BatchSizes batch{.train = options.train_batch_size,
                   .micro = options.per_device_train_batch_size,
                   .accumulation = options.gradient_accumulation_steps};
  settle_batch(options.config, batch, ranks);
  options.train_batch_size = batch.train;
  options.per_device_train_batch_size = batch.micro;
  options.gradient_accumulation_steps = batch.accumulation;
  const std::map<std::string, std::int64_t> settled = {
      {"--train_batch_size", batch.train},
      {"--per_device_train_batch_size", batch.micro},
      {"--gradient_accumulation_steps", batch.accumulation}};
  for (auto& [flag, value] : options.settings) {
    const auto found = settled.find(flag);
    if (found != settled.end()) value = std::to_string(found->second);
  }
}

}  // namespace strata::cli
