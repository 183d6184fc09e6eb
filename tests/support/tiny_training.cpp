#include "tests/support/tiny_training.h"

#include "tests/support/run_on_threads.h"

namespace strata::test {

ModelConfig tiny_llama() {
  ModelConfig config;
  config.family = "llama";
  config.vocab_size = 97;
  config.hidden = 64;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_size = 16;
  config.intermediate = 96;
  config.max_positions = 64;
  return config;
}

ModelConfig tiny_gpt2(bool tied) {
  ModelConfig config;
  config.family = "gpt2";
  config.vocab_size = 97;
  config.hidden = 64;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 4;
  config.head_size = 16;
  config.intermediate = 256;
  config.max_positions = 64;
  config.norm = NormKind::kLayer;
  config.positions = PositionKind::kLearned;
  config.activation = Activation::kGeluNew;
  config.gated_mlp = false;
  config.query_key_value_bias = true;
  config.output_bias = true;
  config.mlp_bias = true;
  config.tied = tied;
  return config;
}

Batch tiny_batch(const StepShape& shape, std::int64_t vocabulary, int step, int rank, int ranks) {
  Batch batch;
  for (int i = 0; i < shape.micro_batches; ++i) {
    MicroBatch micro_batch;
    micro_batch.sequences = shape.sequences;
    micro_batch.tokens_per_sequence = shape.sequence_length;
    // Global micro-batch g goes to rank g % ranks, so any split covers the same tokens.
    const auto global = static_cast<std::uint64_t>(i * ranks + rank);
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      std::uint64_t x = (static_cast<std::uint64_t>(step) * 131 + global) * 7919 +
                        static_cast<std::uint64_t>(t) * 104729;
      x ^= x >> 7;
      const auto id = static_cast<std::int32_t>(x % static_cast<std::uint64_t>(vocabulary));
      micro_batch.ids.push_back(id);
      const bool counted = t % 11 != 3;
      micro_batch.labels.push_back(counted ? static_cast<std::int32_t>((id * 7 + 1) % vocabulary)
                                           : kIgnoredLabel);
      micro_batch.positions.push_back(static_cast<std::int32_t>(t % shape.sequence_length));
    }
    batch.micro_batches.push_back(std::move(micro_batch));
  }
  return batch;
}

TrainerOptions tiny_options(Dtype compute) {
  TrainerOptions options;
  options.shape = {.micro_batches = 2, .sequences = 2, .sequence_length = 17};
  options.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 3e-3};
  options.max_grad_norm = 0.5;
  options.placement.compute = compute;
  return options;
}

void stream_everything(TrainerOptions& options, const std::string& directory) {
  options.placement.swap = {{.path = directory, .weight = 1}};
  options.placement.residency = false;
}

TrainingResult train_rank(const Context& context, const Model& model, const TrainerOptions& options,
                          int steps) {
  const Communicator& world = context.communicator;
  Trainer trainer(context, model, options, random_parameters(17));
  TrainingResult result;
  for (int step = 0; step < steps; ++step) {
    const StepReport report = trainer.step(
        tiny_batch(options.shape, model.vocabulary_size(), step, world.rank(), world.size()));
    result.losses.push_back(report.loss);
    result.norms.push_back(report.gradient_norm);
    result.reports.push_back(report);
  }
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      result.parameters[spec->name] = trainer.read(spec->name);
    }
  }
  result.plan = trainer.memory_plan();
  result.predicted = trainer.predicted_traffic();
  return result;
}

TrainingResult train(const Model& model, const TrainerOptions& options, int steps, int ranks) {
  TrainingResult result;
  run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    TrainingResult own = train_rank({*device, communicator, log}, model, options, steps);
    if (communicator.rank() == 0) result = std::move(own);
  });
  return result;
}

TrainingResult train(const ModelConfig& config, const TrainerOptions& options, int steps,
                     int ranks) {
  return train(make_transformer(config), options, steps, ranks);
}

}  // namespace strata::test
