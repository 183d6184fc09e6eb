#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained_model.h"
#include "core/progress.h"
#include "core/text/bigram.h"
#include "core/text/open_data.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/placement.h"
#include "launch/cli/sequence_length.h"
#include "launch/cli/train_options.h"
#include "launch/plan_report.h"
#include "launch/plot/report.h"
#include "launch/run_record.h"
#include "launch/training.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

/// Texts up to this long are compared with their bigrams.
constexpr std::uint64_t kBigramBytes = 8 << 20;

std::int64_t sequence_length(const TrainOptions& options, const ModelConfig& config) {
  return chosen_sequence_length(options.sequence_length, config);
}

TrainingData load_data(const TrainOptions& options, PretrainedModel& source, Log& log) {
  DataOptions data =
      make_data_options(options.data, source, sequence_length(options, source.config()), log);
  data.seed = static_cast<std::uint64_t>(options.seed);
  data.held_out = options.eval_fraction;
  return open_data(options.data.files, options.eval_data, source.tokenizer(), data);
}

std::int64_t total_steps(const TrainOptions& options, Dataset& dataset, int ranks) {
  if (options.max_steps > 0) return options.max_steps;
  const std::int64_t per_step =
      options.per_device_train_batch_size * options.gradient_accumulation_steps * ranks;
  const double steps = options.num_train_epochs * static_cast<double>(dataset.sequences()) /
                       static_cast<double>(per_step);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
}

/// All but the number of steps, which the data may have to say.
TrainerOptions trainer_options(const TrainOptions& options, std::int64_t length,
                               const std::vector<SwapDrive>& drives) {
  TrainerOptions result;
  result.shape = {.micro_batches = static_cast<int>(options.gradient_accumulation_steps),
                  .sequences = options.per_device_train_batch_size,
                  .sequence_length = length};
  result.optimizer = options.optim;
  result.adamw = {.beta1 = options.adam_beta1,
                  .beta2 = options.adam_beta2,
                  .epsilon = options.adam_epsilon,
                  .weight_decay = options.weight_decay};
  result.lion = {.beta1 = options.adam_beta1,
                 .beta2 = options.adam_beta2,
                 .weight_decay = options.weight_decay};
  result.sgd = {.momentum = options.momentum, .weight_decay = options.weight_decay};
  result.schedule = {.kind = options.lr_scheduler_type,
                     .learning_rate = options.learning_rate,
                     .warmup_steps = options.warmup_steps};
  result.clip = options.clip == ClipChoice::kExact      ? Clip::kExact
                : options.clip == ClipChoice::kPrevious ? Clip::kPrevious
                                                        : Clip::kNone;
  result.max_grad_norm = options.max_grad_norm;
  result.loss_scale = options.loss_scale;
  result.seed = static_cast<std::uint64_t>(options.seed);
  result.placement = make_placement(options.placement, local_rank().size, drives);
  result.io = make_io_options(options.placement, drives);
  return result;
}

std::vector<SwapDrive> drives_of(const TrainOptions& options, Log& log) {
  std::vector<std::string> warnings;
  std::vector<SwapDrive> drives = examine_swap(options.placement, warnings);
  for (const std::string& warning : warnings) log.warn(warning);
  return drives;
}

/// Prints the plan, and refuses one that the drives have no room for. Returns what run.json keeps.
plot::RunDescription announce_plan(const TrainOptions& options, const ModelConfig& config,
                                   const TrainerOptions& trainer,
                                   const std::vector<SwapDrive>& drives, Runtime& runtime) {
  const PlanSubject subject{.name = options.model.string(),
                            .config = config,
                            .dropout = chosen_dropout(config, options.dropout),
                            .frozen = frozen_parameters(config, options.patterns),
                            .shape = trainer.shape,
                            .state = make_update_rule(trainer)->state_sections(),
                            .placement = trainer.placement,
                            .ranks = runtime.communicator().size(),
                            .ranks_per_node = local_rank().size};
  std::vector<std::string> warnings;
  const PlanReport report = make_plan_report(subject, measured_rates(drives, warnings));
  check_swap_room(report.memory, trainer.placement, local_rank().size, drives);
  for (const std::string& warning : warnings) runtime.log().warn(warning);
  plot::RunDescription description{.plan = format_plan(report),
                                   .planned_step_seconds = report.seconds.total(),
                                   .planned_bound = name(report.seconds.bound()),
                                   .settings = options.settings,
                                   .drives = {}};
  runtime.log(description.plan);
  std::set<std::string> devices = {""};  // of network and layered filesystems
  for (const SwapDrive& drive : drives) {
    if (!drive.facts || !devices.insert(drive.facts->block_device).second) continue;
    description.drives.push_back({drive.facts->block_device, drive.facts->wear});
  }
  return description;
}

/// Which dropout there is, or that the config asks for some and gets none; empty if neither.
std::string dropout_line(const ModelConfig& config, const DropoutChoice& choice) {
  const DropoutRates rates = chosen_dropout(config, choice);
  if (rates.any()) return fmt::format("dropout: {}", describe(rates));
  if (!config.dropout.any() || choice.from_config) return {};
  return fmt::format("the config's dropout ({}) is off; --dropout from-config turns it on",
                     describe(config.dropout));
}

/// Everything of a run between its first and its last step.
class TrainRun {
 public:
  TrainRun(Runtime& runtime, const TrainOptions& options)
      : runtime_(runtime),
        options_(options),
        source_(checked(load_pretrained(options.model, options.dropout))),
        trace_(options.trace),
        drives_(drives_of(options, runtime.log())),
        trainer_options_(announced(
            trainer_options(options, sequence_length(options, source_.config()), drives_))),
        data_(load_data(options, source_, runtime.log())),
        trainer_(runtime.context(), source_.model(), scheduled(), source_.source(), &trace_),
        saver_(runtime, trainer_, source_, options.out, options.save) {}

  int run() {
    Communicator& world = runtime_.communicator();
    const bool first = world.rank() == 0;
    StepMetricsCollector collector(
        world, trainer_.useful_operations_per_step(),
        measure_product_rate(runtime_.device(), trainer_options_.placement.compute));
    measure_bigrams();
    world.barrier();
    trace_.set_origin();
    Progress progress(runtime_.log(), "step", static_cast<std::uint64_t>(steps_),
                      !options_.no_progress);
    for (std::int64_t step = 1; step <= steps_; ++step) {
      const Batch batch = data_.training->next(shape());
      if (step == 1 && first) open_record();  // nothing is left of a run that cannot begin
      const StepMetrics metrics = collector.collect(trainer_.step(batch));
      if (record_) record_->write(metrics);
      swap_read_ += metrics.swap_bytes_read;
      swap_written_ += metrics.swap_bytes_written;
      if (step % options_.logging_steps == 0) runtime_.log(step_line(metrics, steps_));
      progress.update(static_cast<std::uint64_t>(step), fmt::format("loss {:.3f}", metrics.loss));
      if (options_.eval_steps > 0 && step % options_.eval_steps == 0 && step < steps_)
        evaluate(step);
      saver_.after_step(step);
      if (world.max(runtime_.stop_requested() ? 1.0 : 0.0) > 0) {
        runtime_.log(fmt::format("stopped after step {} on request; saving", step));
        break;
      }
    }
    evaluate(trainer_.steps_done());
    report_swap();
    write_trace_file();
    saver_.finish(trainer_.steps_done());
    if (first && options_.report) write_report();
    return 0;
  }

 private:
  void open_record() {
    fs::create_directories(options_.out);
    record_.emplace(options_.out, options_.events_directory(), description_);
  }
  PretrainedModel checked(PretrainedModel source) const {
    check_save_target(source.config(), options_.out, {.overwrite = options_.overwrite});
    source.freeze(options_.patterns);
    return source;
  }
  TrainerOptions announced(TrainerOptions trainer) {
    const std::int64_t positions = source_.config().max_positions;
    if (trainer.shape.sequence_length > positions) {
      runtime_.log().warn(
          fmt::format("sequences of {} tokens are longer than the {} positions "
                      "that the model was made for",
                      trainer.shape.sequence_length, positions));
    }
    const std::string dropout = dropout_line(source_.config(), options_.dropout);
    if (!dropout.empty()) runtime_.log(dropout);
    description_ = announce_plan(options_, source_.config(), trainer, drives_, runtime_);
    return trainer;
  }
  /// The options once the data has said how many steps there are.
  const TrainerOptions& scheduled() {
    steps_ = total_steps(options_, *data_.training, runtime_.communicator().size());
    trainer_options_.schedule.total_steps = steps_;
    apply_extras(options_.config, trainer_options_);
    return trainer_options_;
  }
  BatchShape shape() const {
    return {.sequences = trainer_options_.shape.sequences,
            .micro_batches = trainer_options_.shape.micro_batches,
            .rank = runtime_.communicator().rank(),
            .ranks = runtime_.communicator().size()};
  }
  void measure_bigrams() {
    if (!runtime_.log().prints() || !data_.evaluation || data_.bytes > kBigramBytes) return;
    const std::vector<std::int32_t> train = ids_of(data_.training->tokens());
    const BigramModel bigrams(train, source_.config().vocab_size);
    bigrams_ = fmt::format(
        " (bigrams of the training text: {:.4f} there, {:.4f} on the training "
        "text itself)",
        bigrams.loss(ids_of(*data_.evaluation)), bigrams.loss(train, 0.0));
  }
  void evaluate(std::int64_t step) {
    if (!data_.evaluation) return;
    const EvaluationReport report =
        evaluate_all(trainer_, EvaluationPasses(*data_.evaluation, data_.options, shape()));
    Communicator& world = runtime_.communicator();
    swap_read_ +=
        static_cast<std::uint64_t>(world.sum(static_cast<double>(report.swap_bytes_read)));
    swap_written_ +=
        static_cast<std::uint64_t>(world.sum(static_cast<double>(report.swap_bytes_written)));
    if (report.labels == 0) return;
    if (record_) {
      record_->write(EvaluationMetrics{
          .step = step, .loss = report.loss(), .tokens = static_cast<std::int64_t>(report.labels)});
    }
    runtime_.log(fmt::format("step {}: loss {:.4f} on {:.0f} held-out tokens{}", step,
                             report.loss(), report.labels, bigrams_));
    saver_.after_evaluation(step, report.loss());
  }
  /// What the run cost the drives.
  void report_swap() {
    if (swap_written_ == 0) return;
    std::string line = fmt::format("swap of all steps: {} read, {} written",
                                   format_traffic(static_cast<double>(swap_read_)),
                                   format_traffic(static_cast<double>(swap_written_)));
    std::set<std::string> devices;
    for (const SwapDrive& drive : drives_) {
      if (!drive.facts || !drive.facts->wear || !devices.insert(drive.facts->block_device).second) {
        continue;
      }
      line += fmt::format("; {} has taken {:.0f}% of its rated writes", drive.facts->block_device,
                          100 * *drive.facts->wear);
    }
    runtime_.log(line);
  }
  void write_trace_file() {
    if (!options_.trace) return;
    const auto ranks = runtime_.communicator().gather_bytes(trace_.to_bytes());
    if (runtime_.communicator().rank() == 0) {
      write_trace((options_.out / "trace.json").string(), ranks);
    }
  }
  void write_report() {
    const fs::path file = options_.out / "report.html";
    std::vector<std::string> warnings;
    plot::write_report(options_.out, file, warnings);
    for (const std::string& warning : warnings) runtime_.log().warn(warning);
    runtime_.log(fmt::format("wrote {}", file.string()));
  }

  Runtime& runtime_;
  const TrainOptions& options_;
  PretrainedModel source_;
  Trace trace_;
  std::vector<SwapDrive> drives_;
  plot::RunDescription description_;
  TrainerOptions trainer_options_;
  TrainingData data_;
  std::int64_t steps_ = 0;
  Trainer trainer_;
  ModelSaver saver_;
  std::optional<RunRecord> record_;  // of rank 0
  std::uint64_t swap_read_ = 0;      // bytes of all ranks
  std::uint64_t swap_written_ = 0;
  std::string bigrams_;  // what to compare the loss with
};

int run_train(const TrainOptions& options) {
  return run_job(
      [&options](Runtime& runtime) {
        check(options);
        TrainOptions settled = options;
        settle_batch(settled, runtime.communicator().size());
        runtime.log(runtime.binding().description);
        if (!settled.config.file.empty()) runtime.log(format_config(settled.config));
        const std::string ignored = ignored_warning(settled.config);
        if (!ignored.empty()) runtime.log().warn(ignored);
        return TrainRun(runtime, settled).run();
      },
      {.bind = options.bind});
}

}  // namespace

void add_train(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a model through its swap tier");
  add_train_flags(*command, *options);
  command->callback([options, command, &chosen] {
    keep_settings(*command, *options);
    chosen = [options] { return run_train(*options); };
  });
}

}  // namespace strata::cli
