#include "launch/generation/generation_config.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

class GenerationConfigFile : public testing::Test {
 protected:
  GenerationConfig read(std::string_view text, std::string_view config = "{}") {
    test::write_file(directory_ / "config.json", config);
    if (!text.empty()) test::write_file(directory_ / "generation_config.json", text);
    return read_generation_config(directory_.path(), *tokenizer_);
  }
  GenerationSettings settings(std::string_view text, std::string_view config = "{}") {
    return read(text, config).settings;
  }
  test::TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

using Ids = std::vector<std::int32_t>;

TEST_F(GenerationConfigFile, WhatIsNotSaidIsAsInTransformers) {
  const GenerationSettings none = settings("{}");
  EXPECT_TRUE(none.sampling.greedy);
  EXPECT_EQ(none.sampling.top_k, 50);
  EXPECT_EQ(none.sampling.temperature, 1);
  EXPECT_EQ(none.sampling.top_p, 1);
  EXPECT_EQ(none.sampling.min_p, 0);
  EXPECT_EQ(none.sampling.repetition_penalty, 1);
  EXPECT_FALSE(none.max_new_tokens || none.max_length);
  EXPECT_FALSE(settings(R"({"do_sample":true})").sampling.greedy);
}

TEST_F(GenerationConfigFile, SaysHowToSample) {
  const GenerationSettings all = settings(
      R"({"do_sample":true,"temperature":0.5,"top_k":20,"top_p":0.75,"min_p":0.125,)"
      R"("repetition_penalty":1.25,"max_new_tokens":2048,"max_length":4096,"stop_strings":"END"})");
  EXPECT_FALSE(all.sampling.greedy);
  EXPECT_EQ(all.sampling.temperature, 0.5f);
  EXPECT_EQ(all.sampling.top_k, 20);
  EXPECT_EQ(all.sampling.top_p, 0.75f);
  EXPECT_EQ(all.sampling.min_p, 0.125f);
  EXPECT_EQ(all.sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(all.max_new_tokens, 2048);
  EXPECT_EQ(all.max_length, 4096);
  EXPECT_EQ(all.stop, std::vector<std::string>{"END"});
}

TEST_F(GenerationConfigFile, TheEndComesFromTheFirstThatSaysIt) {
  EXPECT_EQ(settings(R"({"eos_token_id":[5,6]})", R"({"eos_token_id":7})").stop_ids, (Ids{5, 6}));
  EXPECT_EQ(settings("{}", R"({"eos_token_id":7})").stop_ids, Ids{7});
  EXPECT_EQ(settings(R"({"eos_token_id":null})", R"({"eos_token_id":null})").stop_ids, Ids{256});
}

TEST_F(GenerationConfigFile, WithoutItConfigJsonCounts) {
  const GenerationSettings old =
      settings("", R"({"do_sample":true,"max_length":20,"temperature":0.5,"eos_token_id":3})");
  EXPECT_FALSE(old.sampling.greedy);
  EXPECT_EQ(old.sampling.temperature, 0.5f);
  EXPECT_FALSE(old.max_length);
  EXPECT_EQ(old.stop_ids, Ids{3});
}

TEST_F(GenerationConfigFile, WhatIsNotHonouredIsSaid) {
  const GenerationConfig beams =
      read(R"({"num_beams":4,"penalty_alpha":0.6,"num_return_sequences":1,"typical_p":1.0,)"
           R"("suppress_tokens":[],"transformers_version":"4.40.0","bos_token_id":1,)"
           R"("chat_format":"chatml"})");
  ASSERT_EQ(beams.warnings.size(), 2u);
  EXPECT_NE(beams.warnings[0].find("generation_config.json: \"num_beams\": 4 is not honoured"),
            std::string::npos)
      << beams.warnings[0];
  EXPECT_NE(beams.warnings[1].find("penalty_alpha"), std::string::npos);
  const GenerationConfig slip = read(R"({"temperatur":0.5})");
  ASSERT_EQ(slip.warnings.size(), 1u);
  EXPECT_NE(slip.warnings[0].find("did you mean \"temperature\"?"), std::string::npos);
}

TEST_F(GenerationConfigFile, WrongValuesNameFileAndKey) {
  const std::string file = (directory_ / "generation_config.json").string();
  const auto refused = [&](std::string_view text, const std::string& part) {
    SCOPED_TRACE(text);
    test::expect_message<FormatError>([&] { settings(text); }, {file, part});
  };
  refused(R"({"temperature":"hot"})", "\"temperature\" is \"hot\", not a number");
  refused(R"({"top_k":-1})", "\"top_k\" is -1");
  refused(R"({"do_sample":1})", "\"do_sample\" is 1, not true or false");
  refused(R"({"eos_token_id":"</s>"})", "\"eos_token_id\"");
  refused(R"({"eos_token_id":[1,-5]})", "\"eos_token_id\"");
  refused(R"({"stop_strings":[""]})", "\"stop_strings\"");
  refused("[]", "not a JSON object");
}

TEST(GenerationSettings, RowsGoOverFlagsAndFlagsOverTheModel) {
  GenerationSettings base;
  base.sampling.top_k = 50;
  base.stop = {"A"};
  base.stop_ids = {1};
  base.max_new_tokens = 10;
  EXPECT_TRUE(overridden(base, {}).sampling.greedy);
  EXPECT_TRUE(overridden(base, {.temperature = 0, .top_p = 0.5}).sampling.greedy);
  EXPECT_FALSE(overridden(base, {.temperature = 0.5}).sampling.greedy);
  EXPECT_FALSE(overridden(base, {.top_p = 0.5}).sampling.greedy);
  EXPECT_EQ(overridden(base, {.temperature = 0.5}).sampling.top_k, 50);
  const GenerationSettings row =
      overridden(base, {.max_tokens = 3, .seed = 9, .stop = {"B"}, .stop_ids = {2}});
  EXPECT_EQ(row.stop, (std::vector<std::string>{"A", "B"}));
  EXPECT_EQ(row.stop_ids, (Ids{1, 2}));
  EXPECT_EQ(row.sampling.seed, 9u);
  EXPECT_EQ(row.max_new_tokens, 3);
}

TEST(GenerationSettings, MaxLengthCountsThePrompt) {
  EXPECT_FALSE(new_tokens({}, 5));
  EXPECT_EQ(new_tokens({.max_length = 12}, 5), 7);
  EXPECT_EQ(new_tokens({.max_length = 12}, 50), 1);
  EXPECT_EQ(new_tokens({.max_new_tokens = 3, .max_length = 12}, 5), 3);
}

TEST(GenerationSettings, AreDescribedForPeople) {
  const auto tokenizer = make_byte_tokenizer();
  GenerationSettings settings{.stop_ids = {65, 999}, .stop = {"\n"}};
  EXPECT_EQ(describe(settings, *tokenizer), "greedy; ends at A, 999, \"\\n\"");
  settings = overridden({.sampling = {.top_k = 50}},
                        {.temperature = 0.5, .top_p = 0.25, .repetition_penalty = 1.5, .seed = 3});
  EXPECT_EQ(describe(settings, *tokenizer),
            "temperature 0.5, top-k 50, top-p 0.25, repetition penalty 1.5; seed 3");
}

}  // namespace
}  // namespace strata
