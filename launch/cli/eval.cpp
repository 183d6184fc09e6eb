#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "checkpoint/pretrained_model.h"
#include "launch/cli/command_line.h"
#include "launch/cli/data_options.h"
#include "launch/cli/flags.h"
#include "launch/cli/placement.h"
#include "launch/cli/sequence_length.h"
#include "launch/training.h"

namespace strata::cli {
namespace {

/// Micro-batches for which a pass streams the weights once.
constexpr std::int64_t kMostMicroBatches = 16;

struct EvalOptions {
  std::filesystem::path model;
  DataFlags data;
  std::int64_t per_device_eval_batch_size = 8;
  std::int64_t sequence_length = 0;
  bool json = false;
  PlacementOptions placement;
};

/// Nothing is updated: the rule with the least state.
TrainerOptions trainer_options(const EvalOptions& options, const StepShape& shape,
                               const std::vector<SwapDrive>& drives) {
  TrainerOptions result;
  result.shape = shape;
  result.optimizer = OptimizerKind::kSgd;
  result.placement = make_placement(options.placement, local_rank().size, drives);
  result.io = make_io_options(options.placement, drives);
  return result;
}

void print_result(const EvalOptions& options, const TrainingData& data,
                  const EvaluationReport& report, std::int64_t tokens) {
  const double bytes_per_token =
      static_cast<double>(data.evaluation_bytes) / static_cast<double>(tokens);
  if (options.json) {
    const nlohmann::ordered_json result{{"loss", report.loss()},
                                        {"perplexity", std::exp(report.loss())},
                                        {"predicted_tokens", report.labels},
                                        {"tokens", tokens},
                                        {"bytes", data.evaluation_bytes},
                                        {"bytes_per_token", bytes_per_token}};
    fmt::print("{}\n", result.dump(2));
    return;
  }
  fmt::print(
      "loss {:.4f}, perplexity {:.4g}, over {:.0f} predicted tokens; {:.3g} bytes per token\n",
      report.loss(), std::exp(report.loss()), report.labels, bytes_per_token);
}

int evaluate(Runtime& runtime, const EvalOptions& options) {
  PretrainedModel source = load_pretrained(options.model);
  const std::int64_t length = chosen_sequence_length(options.sequence_length, source.config());
  const TrainingData data =
      open_evaluation_data(options.data.files, source.tokenizer(),
                           make_data_options(options.data, source, length, runtime.log()));
  const int ranks = runtime.communicator().size();
  const std::int64_t tokens = data.evaluation->wait_for(std::numeric_limits<std::int64_t>::max());
  const std::int64_t per_micro_batch = options.per_device_eval_batch_size * ranks * length;
  const StepShape shape{
      .micro_batches = static_cast<int>(std::clamp((tokens + per_micro_batch - 1) / per_micro_batch,
                                                   std::int64_t{1}, kMostMicroBatches)),
      .sequences = options.per_device_eval_batch_size,
      .sequence_length = length};
  std::vector<std::string> warnings;
  const std::vector<SwapDrive> drives = examine_swap(options.placement, warnings);
  for (const std::string& warning : warnings) runtime.log().warn(warning);
  Trainer trainer(runtime.context(), source.model(), trainer_options(options, shape, drives),
                  source.source());
  const EvaluationPasses passes(*data.evaluation, data.options,
                                {.sequences = shape.sequences,
                                 .micro_batches = shape.micro_batches,
                                 .rank = runtime.communicator().rank(),
                                 .ranks = ranks});
  const EvaluationReport report = evaluate_all(trainer, passes);
  if (report.labels == 0) {
    throw UsageError(
        fmt::format("--data: {} has no token to predict", options.data.files.front().string()));
  }
  if (runtime.log().prints()) print_result(options, data, report, tokens);
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      app.add_subcommand("eval", "Loss and perplexity of a model on data, streamed like training");
  add_path(*command, "--model,-m", options->model, "DIR", "config.json and safetensors")
      ->required();
  add_data_flags(*command, options->data);
  add_whole(*command, "--per_device_eval_batch_size", options->per_device_eval_batch_size, 1,
            1 << 20, "sequences a rank computes at once");
  add_whole(*command, "--sequence_length", options->sequence_length, 0, 1 << 24,
            "tokens of a sequence; 0: the smaller of 1024 and what the model allows");
  add_streaming_flags(*command, options->placement);
  add_switch(*command, "--json", options->json, "facts as JSON");
  command->callback([options, &chosen] {
    chosen = [options] {
      check_directory("--model", options->model);
      check(options->data);
      check(options->placement);
      return run_job([&](Runtime& runtime) { return evaluate(runtime, *options); });
    };
  });
}

}  // namespace strata::cli
