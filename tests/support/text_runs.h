#pragma once

#include <gtest/gtest.h>

#include <mutex>
#include <utility>
#include <vector>

#include "parallel/text_generation.h"
#include "tests/support/golden_model.h"
#include "tests/support/run_on_threads.h"

namespace strata::test {

using Ids = std::vector<std::int32_t>;

inline PretrainedModel frozen_model(const std::string& name) {
  PretrainedModel model = load_pretrained(golden_directory(name));
  model.freeze_all();
  return model;
}

inline GeneratorOptions tiny_generator() {
  GeneratorOptions options;
  options.compute = Dtype::kF32;
  options.sequences = 4;
  options.sequence_tokens = 128;
  return options;
}

struct Outcome {
  std::vector<GenerationResult> results;  // by request
  GenerationProgress progress;            // of rank 0
  GenerationPlan plan;                    // of rank 0
  std::uint64_t bytes_read = 0;           // of rank 0
  std::vector<float> logits;              // of rank 0: of the tokens that were chosen
};

/// How texts are continued, beside the generator's options.
struct RunOptions {
  int ranks = 1;
  const ParameterSource* values = nullptr;    // instead of the model's own
  const ParameterLocator* locator = nullptr;  // likewise
  bool batch_invariant = false;
  std::int64_t speculate = 0;
  std::int64_t speculate_rows = 0;
  std::optional<std::uint64_t> dram_of_last_rank = {};  // in place of the options'
};

/// Continues prompts; prompt i on rank i modulo `ranks`.
inline Outcome generate(const PretrainedModel& model, const GeneratorOptions& options,
                        const std::vector<GenerationRequest>& requests,
                        const RunOptions& how = {}) {
  Outcome run;
  run.results.resize(requests.size());
  std::mutex mutex;
  run_on_threads(how.ranks, [&](Communicator& communicator) {
    // As `strata generate` has it.
    const bool invariant = how.batch_invariant || options.compute == Dtype::kF32;
    const std::unique_ptr<Device> device = make_cpu_device(1, invariant);
    Log log(1);
    const Context context{*device, communicator, log};
    const ParameterSource& source = how.values != nullptr ? *how.values : model.source();
    const ParameterLocator own = how.values != nullptr ? ParameterLocator() : model.locator();
    GeneratorOptions own_options = options;
    if (how.dram_of_last_rank && communicator.rank() + 1 == how.ranks) {
      own_options.dram_bytes = how.dram_of_last_rank;
    }
    Generator generator(context, model.model(), own_options, source,
                        how.locator != nullptr ? *how.locator : own);
    TextGeneration texts(context, generator,
                         {.max_sequences = options.sequences,
                          .speculate = how.speculate,
                          .speculate_rows = how.speculate_rows});
    auto next = static_cast<std::size_t>(communicator.rank());
    GenerationProgress progress;
    texts.run(
        [&]() -> std::optional<GenerationRequest> {
          if (next >= requests.size()) return std::nullopt;
          GenerationRequest request = requests[next];
          request.on_finish = [&, index = next](GenerationResult result) {
            const std::lock_guard lock(mutex);
            run.results[index] = std::move(result);
          };
          next += static_cast<std::size_t>(how.ranks);
          return request;
        },
        [&](const GenerationProgress& now) { progress = now; });
    if (communicator.rank() != 0) return;
    run.progress = progress;
    run.plan = generator.plan();
    run.bytes_read = generator.bytes_read();
  });
  return run;
}

inline GenerationRequest greedy(Ids prompt, std::int64_t count) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = count;
  request.sampling.log_probability = true;
  return request;
}

inline Ids text(std::size_t length, std::int32_t first) {
  Ids ids;
  for (std::size_t i = 0; i < length; ++i) {
    ids.push_back(
        static_cast<std::int32_t>((static_cast<std::size_t>(first) + 7 * i + i * i) % 97));
  }
  return ids;
}

inline void expect_same(const std::vector<GenerationResult>& got,
                        const std::vector<GenerationResult>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].ids, want[i].ids) << "text " << i;
    EXPECT_EQ(got[i].log_probabilities, want[i].log_probabilities) << "to the bit, text " << i;
  }
}

}  // namespace strata::test
