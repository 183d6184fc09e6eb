#include "parallel/block_costs.h"

#include <gtest/gtest.h>

#include "tests/support/plain_visit.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

ModelConfig with_large_vocabulary(ModelConfig config) {
  config.vocab_size = 2 * kRowTile + 100;
  return config;
}

TEST(MeasureBlocks, PredictsTheWorkspaceOfRealVisitsToTheByte) {
  const StepShape shape{.micro_batches = 3, .sequences = 2, .sequence_length = 17};
  for (const ModelConfig& config :
       {test::tiny_llama(), test::tiny_gpt2(true), test::tiny_gpt2(false),
        with_large_vocabulary(test::tiny_llama()), with_large_vocabulary(test::tiny_gpt2(true))}) {
    for (const Dtype compute : {Dtype::kF32, Dtype::kBf16}) {
      SCOPED_TRACE(config.family + " in " + std::string(name(compute)));
      const Model model = make_transformer(config);
      test::PlainModel plain(model, compute, random_parameters(1));
      const Batch batch = test::tiny_batch(shape, config.vocab_size, 0, 0, 1);
      const int last = model.block_count() - 1;
      plain.run(batch, 1.0f, false);
      const std::size_t evaluation = plain.backward_peak(last);
      plain.run(batch, 1.0f);
      const std::vector<BlockCost> costs = measure_blocks(model, shape, compute);
      for (int b = 0; b <= last; ++b) {
        const BlockCost& cost = costs[static_cast<std::size_t>(b)];
        EXPECT_EQ(b == last ? evaluation : plain.forward_peak(b), cost.forward_workspace)
            << "block " << b;
        EXPECT_EQ(plain.backward_peak(b), cost.backward_workspace) << "block " << b;
      }
      EXPECT_GT(costs.back().backward_workspace, 0u);
    }
  }
}

}  // namespace
}  // namespace strata
