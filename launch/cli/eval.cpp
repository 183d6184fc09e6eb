#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "checkpoint/pretrained_model.h"
#include "checkpoint/quantized_values.h"
#include "launch/cli/command_line.h"
#include "launch/cli/data_options.h"
#include "launch/cli/flags.h"
#include "launch/cli/generator_setup.h"
#include "launch/cli/placement.h"
#include "launch/cli/sequence_length.h"
#include "launch/generation/weight_names.h"
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
  Dtype weights = Dtype::kBf16;  ///< kQ8, kQ4: also as those would have it
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

/// What a model says of the data, as it is and as quantised.
struct Results {
  EvaluationReport own;
  std::optional<EvaluationReport> quantized;
};

void print_json_result(const EvalOptions& options, const Results& results, std::int64_t tokens,
                       std::uint64_t bytes) {
  const EvaluationReport& own = results.own;
  nlohmann::ordered_json result{
      {"loss", own.loss()},
      {"perplexity", std::exp(own.loss())},
      {"predicted_tokens", own.labels},
      {"tokens", tokens},
      {"bytes", bytes},
      {"bytes_per_token", static_cast<double>(bytes) / static_cast<double>(tokens)}};
  if (results.quantized) {
    const double loss = results.quantized->loss();
    result["quantized"] = {
        {"weights", weight_name(options.weights)}, {"loss", loss}, {"perplexity", std::exp(loss)}};
  }
  fmt::print("{}\n", result.dump(2));
}

void print_result(const EvalOptions& options, const Results& results, std::int64_t tokens,
                  std::uint64_t bytes) {
  if (options.json) return print_json_result(options, results, tokens, bytes);
  const EvaluationReport& own = results.own;
  fmt::print(
      "loss {:.4f}, perplexity {:.4g}, over {:.0f} predicted tokens; {:.3g} bytes per token\n",
      own.loss(), std::exp(own.loss()), own.labels,
      static_cast<double>(bytes) / static_cast<double>(tokens));
  if (!results.quantized) return;
  const double loss = results.quantized->loss();
  fmt::print("{}: loss {:.4f}, perplexity {:.4g}, {:+.2f} %\n", weight_name(options.weights), loss,
             std::exp(loss), 100 * std::expm1(loss - own.loss()));
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
  const EvaluationPasses passes(*data.evaluation, data.options,
                                {.sequences = shape.sequences,
                                 .micro_batches = shape.micro_batches,
                                 .rank = runtime.communicator().rank(),
                                 .ranks = ranks});
  const TrainerOptions trainer = trainer_options(options, shape, drives);
  const auto report_of = [&](const ParameterSource& values) {
    Trainer evaluator(runtime.context(), source.model(), trainer, values);
    return evaluate_all(evaluator, passes);
  };
  Results results{.own = report_of(source.source()), .quantized = {}};
  if (results.own.labels == 0) {
    throw UsageError(
        fmt::format("--data: {} has no token to predict", options.data.files.front().string()));
  }
  if (is_quantized(options.weights)) {
    results.quantized =
        report_of(quantized_values(source.source(), {trainer.placement.compute, options.weights}));
  }
  if (runtime.log().prints()) print_result(options, results, tokens, data.evaluation_bytes);
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
  add_weights_flag(*command, options->weights,
                   "int8, int4: evaluates also with matrices that lost what these lose");
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
