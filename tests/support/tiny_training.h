#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "parallel/trainer.h"

namespace strata::test {

/// A Llama or GPT-2 small enough for a test to train in milliseconds, big enough that every block
/// spans several ranks.
ModelConfig tiny_llama();
ModelConfig tiny_gpt2(bool tied);

/// The micro-batches that `rank` of `ranks` trains on in step `step`, out of a global batch of
/// shape.micro_batches * ranks micro-batches that depends on the step only.
Batch tiny_batch(const StepShape& shape, std::int64_t vocabulary, int step, int rank, int ranks);

/// What a run leaves: compared bit by bit where placement must not matter.
struct TrainingResult {
  std::vector<double> losses;
  std::vector<double> norms;
  std::map<std::string, std::vector<float>> parameters;
  std::vector<StepReport> reports;
  MemoryPlan plan;
  SwapTraffic predicted;
};

/// fp32, two micro-batches of 2 x 17 tokens, AdamW with clipping.
TrainerOptions tiny_options(Dtype compute = Dtype::kF32);
/// Everything through swap in `directory`.
void stream_everything(TrainerOptions& options, const std::string& directory);

/// Trains `steps` steps as one rank; collective.
TrainingResult train_rank(const Context& context, const Model& model, const TrainerOptions& options,
                          int steps);
/// The same on `ranks` threads with a CPU each; the result is rank 0's.
TrainingResult train(const Model& model, const TrainerOptions& options, int steps, int ranks = 1);
TrainingResult train(const ModelConfig& config, const TrainerOptions& options, int steps,
                     int ranks = 1);

}  // namespace strata::test
