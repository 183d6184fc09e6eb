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

/// All but the norms; all but one product of the second layer; the head's table alone.
enum class Trained { kAll, kNorms, kOneProduct, kTable };

Model model_of(const ModelConfig& config, Trained trained, const DropoutRates& dropout = {}) {
  Model model = make_transformer(config, dropout);
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      const bool norm = spec->name.find("norm") != std::string::npos;
      const bool stays =
          trained == Trained::kAll || (trained == Trained::kNorms && norm) ||
          (trained == Trained::kOneProduct && spec->name == "layers.1.mlp.up.weight") ||
          (trained == Trained::kTable && spec->row_tiled && b > 0);
      if (!stays) model.freeze(spec->name);
    }
  }
  return model;
}

struct Measured {
  ModelConfig config;
  Trained trained = Trained::kAll;
  DropoutRates dropout = {};
};

TEST(MeasureBlocks, PredictsTheWorkspaceOfRealVisitsToTheByte) {
  const StepShape shape{.micro_batches = 3, .sequences = 2, .sequence_length = 17};
  constexpr DropoutRates kDropout{.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f};
  for (const auto& [config, trained, dropout] :
       {Measured{test::tiny_llama()}, Measured{test::tiny_gpt2(true)},
        Measured{test::tiny_gpt2(false)}, Measured{with_large_vocabulary(test::tiny_llama())},
        Measured{with_large_vocabulary(test::tiny_gpt2(true))},
        Measured{test::tiny_llama(), Trained::kNorms},
        Measured{test::tiny_gpt2(true), Trained::kNorms},
        Measured{test::tiny_llama(), Trained::kOneProduct},
        Measured{with_large_vocabulary(test::tiny_llama()), Trained::kTable},
        Measured{test::tiny_gpt2(true), Trained::kAll, kDropout},
        Measured{test::tiny_gpt2(true), Trained::kNorms, kDropout}}) {
    for (const Dtype compute : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
      SCOPED_TRACE(config.family + " in " + std::string(name(compute)) + ", " +
                   std::to_string(static_cast<int>(trained)));
      const Model model = model_of(config, trained, dropout);
      test::PlainModel plain(model, compute, random_parameters(1));
      plain.draw(1, 1);
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

TEST(MeasureBlocks, FrozenParametersCostNoProductsOfTheirOwn) {
  const StepShape shape{.micro_batches = 2, .sequences = 2, .sequence_length = 17};
  const auto costs_of = [&](Trained trained) {
    return measure_blocks(model_of(test::tiny_llama(), trained), shape, Dtype::kF32);
  };
  const std::vector<BlockCost> all = costs_of(Trained::kAll);
  const std::vector<BlockCost> norms = costs_of(Trained::kNorms);
  const std::vector<BlockCost> one = costs_of(Trained::kOneProduct);
  const std::vector<BlockCost> table = costs_of(Trained::kTable);
  // Weights of a layer: q, o 64 x 64; k, v 32 x 64; gate, up, down 96 x 64. Two operations each.
  const double tokens = 2 * 2 * 17;
  const double weights = 2 * tokens * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64);
  EXPECT_DOUBLE_EQ(norms[2].backward_operations, all[2].backward_operations - weights);
  EXPECT_EQ(norms[2].forward_operations, all[2].forward_operations);
  EXPECT_LT(norms[2].backward_workspace, all[2].backward_workspace);
  EXPECT_EQ(all[2].useful_operations, 3 * all[2].forward_operations);
  EXPECT_LT(norms[2].useful_operations, all[2].useful_operations);
  // Layer 1 (block 2) is the lowest: nothing goes through its attention.
  EXPECT_EQ(one[1].backward_operations, 0);
  EXPECT_EQ(one[1].backward_workspace, 0u);
  const double up = 2 * tokens * 96 * 64;
  EXPECT_DOUBLE_EQ(one[2].backward_operations, one[2].forward_operations + 2 * up)
      << "through down, and to the weight of up";
  EXPECT_DOUBLE_EQ(one[3].backward_operations, all[3].backward_operations - weights);
  // Of the head: logits twice, and the gradient of the table; nothing below.
  EXPECT_DOUBLE_EQ(table.back().backward_operations, 3 * 2 * tokens * 97 * 64);
  EXPECT_DOUBLE_EQ(table.back().useful_operations, 2 * 2 * tokens * 97 * 64);
}

}  // namespace
}  // namespace strata
