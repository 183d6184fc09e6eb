// What is generated from weights that were quantised once.
#include <gtest/gtest.h>

#include <utility>

#include "checkpoint/quantized_weights.h"
#include "parallel/text_generation.h"
#include "tests/support/golden_model.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

/// The tokens that follow one prompt.
std::vector<std::int32_t> generate(const PretrainedModel& model, const GeneratorOptions& options,
                                   const ParameterLocator& locator, int ranks,
                                   std::vector<WeightHome>& homes) {
  std::vector<std::int32_t> ids;
  test::run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const Context context{*device, communicator, log};
    Generator generator(context, model.model(), options, model.source(), locator);
    TextGeneration texts(context, generator, {.max_sequences = 1});
    bool given = communicator.rank() != 0;
    texts.run(
        [&]() -> std::optional<GenerationRequest> {
          if (std::exchange(given, true)) return std::nullopt;
          GenerationRequest request;
          request.prompt = {1, 5, 9, 2, 60};
          request.max_new_tokens = 20;
          request.on_finish = [&](GenerationResult result) { ids = std::move(result.ids); };
          return request;
        },
        [](const GenerationProgress&) {});
    if (communicator.rank() == 0) homes = generator.plan().homes;
  });
  return ids;
}

TEST(QuantizedGeneration, ReadsTheWeightsInPlace) {
  const test::TemporaryDirectory cache;
  for (const char* name : {"gpt2_untied", "llama_tied", "opt_post_norm"}) {
    SCOPED_TRACE(name);
    PretrainedModel model = load_pretrained(test::golden_directory(name));
    model.freeze_all();
    for (const Dtype weights : {Dtype::kQ8, Dtype::kQ4}) {
      GeneratorOptions options;
      options.compute = Dtype::kF32;
      options.weights = weights;
      options.sequence_tokens = 32;
      std::vector<WeightHome> homes;
      const auto want = generate(model, options, {}, 1, homes);
      ASSERT_EQ(want.size(), 20u);
      const ParameterLocator locator =
          quantized_weights(model, {Dtype::kF32, weights}, cache.path(), {});
      EXPECT_EQ(generate(model, options, locator, 1, homes), want);
      options.residency = false;  // and no swap to copy anything to
      for (const int ranks : {1, 3}) {
        EXPECT_EQ(generate(model, options, locator, ranks, homes), want);
        const Partition partition(model.model(), ranks,
                                  WeightStorage{options.compute, options.weights});
        for (int p = 0; p < partition.part_count(); ++p) {
          if (partition.part(p).shard_numel() == 0) continue;
          EXPECT_EQ(homes[static_cast<std::size_t>(p)], WeightHome::kFile) << "part " << p;
        }
      }
    }
  }
}

}  // namespace
}  // namespace strata
