#include "checkpoint/parameter_patterns.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/golden_model.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

using Names = std::vector<std::string>;

ModelConfig config_of(const char* name) {
  return read_config(test::golden_directory(name) / "config.json");
}

Names frozen(const char* model, const Names& freeze, const Names& train = {}) {
  return frozen_parameters(config_of(model), {freeze, train});
}

TEST(ParameterPatterns, MatchHuggingFaceNamesWithAndWithoutThePrefix) {
  const Names want{"layers.1.mlp.gate.weight", "layers.1.mlp.up.weight",
                   "layers.1.mlp.down.weight"};
  EXPECT_EQ(frozen("llama_untied", {"model.layers.1.mlp.*"}), want);
  EXPECT_EQ(frozen("llama_untied", {"layers.1.mlp.*"}), want);
  EXPECT_EQ(frozen("llama_untied", {"*.1.*gate*", "*.1.mlp.[ud]*"}), want);
  EXPECT_EQ(frozen("llama_untied", {"lm_head.weight"}), Names{"head.weight"});
  EXPECT_EQ(frozen("llama_untied", {"norm.weight"}), Names{"head.norm.weight"});
  EXPECT_EQ(frozen("gpt2_tied", {"h.0.ln_1.*"}),
            (Names{"layers.0.attention_norm.weight", "layers.0.attention_norm.bias"}));
}

TEST(ParameterPatterns, TrainingSomeFreezesAllOthers) {
  const ModelConfig config = config_of("gpt2_tied");
  const auto all = name_map(config).size();
  EXPECT_EQ(frozen("gpt2_tied", {}, {"*ln_?.*"}).size(), all - 2 * 4 - 2);
  EXPECT_EQ(frozen("gpt2_tied", {"*ln_f.*"}, {"*ln_?.*"}).size(), all - 2 * 4);
  EXPECT_TRUE(frozen("gpt2_tied", {}).empty());
}

TEST(ParameterPatterns, WhatIsOneTensorGoesTogether) {
  EXPECT_EQ(frozen("gpt2_tied", {"*.h.0.attn.c_attn.bias"}),
            (Names{"layers.0.attention.q.bias", "layers.0.attention.k.bias",
                   "layers.0.attention.v.bias"}));
  for (const char* either : {"lm_head.weight", "model.embed_tokens.weight"}) {
    EXPECT_EQ(frozen("llama_tied", {either}), Names{"embedding.tokens.weight"});
  }
  EXPECT_EQ(frozen("llama_untied", {"*embed*"}), Names{"embedding.tokens.weight"});
}

TEST(ParameterPatterns, ThatMatchNothingAreRefusedWithNamesThatAreNear) {
  test::expect_message<UsageError>(
      [] { frozen("llama_untied", {"model.layers.*.self_atn.q_proj.*"}); },
      {"--freeze", "model.layers.*.self_atn.q_proj.*", "model.layers.0.self_attn.q_proj.weight"});
  test::expect_message<UsageError>([] { frozen("gpt2_tied", {}, {"*.ln1.*"}); },
                                   {"--train", "*.ln1.*", "transformer.h.0.ln_1.weight"});
  test::expect_message<UsageError>([] { frozen("gpt2_tied", {"*mlp*", ""}); }, {"--freeze"});
}

TEST(ParameterPatterns, RefuseToFreezeEverything) {
  test::expect_message<UsageError>(
      [] { frozen("gpt2_tied", {"*"}); },
      {"--freeze, --train: all 36 parameters", "nothing is left to train", "--freeze *"});
  test::expect_message<UsageError>([] { frozen("gpt2_tied", {"*ln*"}, {"*.ln_?.*"}); },
                                   {"--freeze, --train: all", "nothing is left to train"});
}

}  // namespace
}  // namespace strata
