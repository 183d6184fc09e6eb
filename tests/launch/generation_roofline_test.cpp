#include <gtest/gtest.h>

#include <cmath>

#include "launch/generation_bench/roofline.h"

namespace strata {
namespace {

// By hand: a 70B model in bf16 (P = 70.6e9, 80 layers, 8 key/value heads of 128), 512 tokens of
// prompt and 128 generated, on a desktop with two drives of Gen4 and one GPU: 13 GB/s of drives,
// 65 GB/s of DRAM, where attention runs, and 130 TFLOP/s. Weights go to the GPU, past the DRAM's
// readers.
constexpr double kParameters = 70.6e9;

GenerationCost cost_70b(double bytes_per_weight) {
  return {.streamed_bytes = kParameters * bytes_per_weight,
          .operations_per_token = 2 * kParameters,
          .kv_bytes_per_token = 2.0 * 80 * 8 * 128 * 2};
}

constexpr GenerationRates kDesktop{.stream = 13e9, .memory = 65e9, .operations = 130e12};

TEST(GenerationRoofline, GivesTheTimesOfAPassByHand) {
  const PassTime pass = pass_time(
      cost_70b(2), kDesktop, {.tokens = 1000, .logits = 1000, .attended_tokens = 1000 * 576.0});
  EXPECT_NEAR(pass.stream, 10.86, 0.01);    // 141.2 GB / 13 GB/s
  EXPECT_NEAR(pass.compute, 1.086, 0.001);  // 2 * 70.6e9 * 1000 / 130e12
  EXPECT_NEAR(pass.memory, 2.90, 0.01);     // 189 GB / 65 GB/s
  EXPECT_DOUBLE_EQ(pass.seconds(), pass.stream);
  EXPECT_EQ(pass.bound(), GenerationBound::kStream);
}

TEST(GenerationRoofline, GivesTheTokensPerSecondOfSeparateAndOfMixedPhases) {
  const GenerationShape shape{.batch = 490, .prompt = 512, .generated = 128};
  const GenerationRoofline roofline = generation_roofline(cost_70b(2), kDesktop, shape);
  EXPECT_EQ(roofline.prefill.bound(), GenerationBound::kCompute);
  EXPECT_NEAR(roofline.prefill.seconds(), 272.5, 0.1);
  EXPECT_EQ(roofline.decode.bound(), GenerationBound::kStream);
  EXPECT_NEAR(roofline.seconds, 272.5 + 127 * 10.86, 0.2);
  EXPECT_NEAR(roofline.tokens_per_second, 38, 0.5);
  EXPECT_NEAR(mixed_tokens_per_second(cost_70b(2), kDesktop, shape), 45, 0.5);
}

TEST(GenerationRoofline, FindsTheBatchFromWhichComputingBinds) {
  // w F / (2 B): bytes of a weight, operations, bytes of drives.
  EXPECT_NEAR(crossing_batch(cost_70b(2), kDesktop), 10.0e3, 1);
  const GenerationRates server{.stream = 27e9, .memory = 350e9, .operations = 500e12};
  EXPECT_NEAR(crossing_batch(cost_70b(2), server), 18.5e3, 50);
  EXPECT_NEAR(crossing_batch(cost_70b(0.5625), kDesktop), 2.8e3, 20);
  EXPECT_EQ(crossing_batch(cost_70b(0), kDesktop), 0);
  EXPECT_TRUE(std::isinf(crossing_batch(cost_70b(2), {.stream = 1})));
}

TEST(GenerationRoofline, ReadsWeightsFromMemoryWhereProductsRunOnTheProcessor) {
  // One token at a time is as fast as memory gives the weights and the keys of the text.
  GenerationCost cost{.weight_bytes = 1e9, .operations_per_token = 1e6, .kv_bytes_per_token = 1e6};
  const GenerationRates rates{.stream = 1e9, .memory = 10e9, .operations = 1e12};
  const GenerationShape shape{.batch = 2, .prompt = 100, .generated = 10};
  const GenerationRoofline roofline = generation_roofline(cost, rates, shape);
  EXPECT_EQ(roofline.decode.bound(), GenerationBound::kMemory);
  EXPECT_DOUBLE_EQ(roofline.decode.seconds(), (1e9 + 2 * 105 * 1e6) / 10e9);
  EXPECT_DOUBLE_EQ(roofline.prefill.memory, (1e9 + 2 * 100 * 1e6) / 10e9);
  EXPECT_DOUBLE_EQ(roofline.decode.stream, 0);
  // What nobody measured is no limit.
  EXPECT_EQ(pass_time(cost, {}, {.tokens = 1}).seconds(), 0);
}

}  // namespace
}  // namespace strata
