#include "core/nearest_name.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(EditDistance, CountsTheSmallestNumberOfChanges) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", "abc"), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("data", "dta"), 1);
  EXPECT_EQ(edit_distance("lazy", "alzy"), 1) << "neighbours swapped";
  EXPECT_EQ(edit_distance("abc", "xyz"), 3);
}

TEST(NearestName, FindsTheOneThatWasMeant) {
  const std::vector<std::string> names = {"--max_steps", "--max_grad_norm", "--model", "--data"};
  EXPECT_EQ(nearest_name("--max_step", names), "--max_steps");
  EXPECT_EQ(nearest_name("--modle", names), "--model");
  EXPECT_EQ(nearest_name("--date", names), "--data");
}

TEST(NearestName, FindsKeysOfConfigurations) {
  const std::vector<std::string> names = {"lr",
                                          "eps",
                                          "aio",
                                          "amp",
                                          "stage",
                                          "fp16",
                                          "bf16",
                                          "zero_optimization",
                                          "seed",
                                          "dram",
                                          "trace",
                                          "learning_rate",
                                          "train_batch_size"};
  const std::pair<const char*, const char*> cases[] = {{"lerning_rate", "learning_rate"},
                                                       {"learningRate", "learning_rate"},
                                                       {"learning-rate", "learning_rate"},
                                                       {"zero_optimisation", "zero_optimization"},
                                                       {"bf_16", "bf16"},
                                                       {"BF16", "bf16"},
                                                       {"bf61", "bf16"},
                                                       {"train_batchsize", "train_batch_size"},
                                                       {"stge", "stage"},
                                                       {"LR", "lr"}};
  for (const auto& [wanted, meant] : cases) EXPECT_EQ(nearest_name(wanted, names), meant);
}

TEST(NearestName, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("--frobnicate", {"--data", "--model"}), "");
  EXPECT_EQ(nearest_name("x", {}), "");
  const std::vector<std::string> names = {"lr", "aio", "amp", "bf16", "seed", "stage", "trace"};
  for (const char* unlike : {"x", "xy", "map1", "fp8", "nodes", "wandb", "gradient_noise"}) {
    EXPECT_EQ(nearest_name(unlike, names), "") << unlike;
  }
}

}  // namespace
}  // namespace strata
