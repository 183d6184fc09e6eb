#include "launch/generation/prompts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/files.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> golden_tokenizer(const std::string& name) {
  return read_tokenizer(STRATA_SOURCE_DIR "/tests/golden/tokenizers/" + name + ".json");
}

TEST(Prompts, MessagesAreWhatApplyChatTemplateMakesOfThem) {
  const auto fixture =
      nlohmann::json::parse(test::read_file(STRATA_SOURCE_DIR "/tests/golden/chat/chatml.json"));
  const auto tokenizer = golden_tokenizer("qwen2");
  int made = 0, checked = 0;
  PromptEncoder prompts(*tokenizer, [&] {
    ++made;
    return ChatTemplate::choose(*tokenizer, {}, "chatml");
  });
  for (const auto& example : fixture["cases"]) {
    if (example["add_generation_prompt"] != true || example["ids"].is_null()) continue;
    const nlohmann::json line{{"messages", example["messages"]}};
    SCOPED_TRACE(line.dump());
    EXPECT_EQ(prompts.encode(parse_request_row(line.dump(), "row")), example["ids"].get<Ids>());
    ++checked;
  }
  EXPECT_GE(checked, 5);
  EXPECT_EQ(made, 1);
}

TEST(Prompts, TextsGetWhatTheModelExpectsBeforeThem) {
  const auto tokenizer = golden_tokenizer("llama2");
  PromptEncoder prompts(*tokenizer, {});
  const Ids ids = prompts.encode({.prompt = "the text"});
  ASSERT_FALSE(tokenizer->frame().before.empty());
  EXPECT_EQ(ids.front(), tokenizer->frame().before.front());
  EXPECT_EQ(tokenizer->decode(ids), "the text");
  EXPECT_EQ(prompts.encode({.prompt_ids = {5, 6}}), (Ids{5, 6}));
}

TEST(Prompts, SpecialTokensAreParsedOnlyOnRequest) {
  const auto tokenizer = golden_tokenizer("qwen2");
  const std::int32_t id = *tokenizer->find("<|im_end|>");
  EXPECT_EQ(PromptEncoder(*tokenizer, {}, true).encode({.prompt = "<|im_end|>"}), Ids{id});
  const Ids data = PromptEncoder(*tokenizer, {}).encode({.prompt = "<|im_end|>"});
  EXPECT_EQ(std::count(data.begin(), data.end(), id), 0);
}

TEST(Prompts, AnEmptyPromptMayHaveNoToken) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_TRUE(PromptEncoder(*tokenizer, {}).encode({}).empty());
}

TEST(UnknownIds, AreHolesAndWhatIsBehindTheTokenizer) {
  const auto bytes = make_byte_tokenizer();
  EXPECT_EQ(unknown_ids(*bytes, 257), Ids{});
  EXPECT_EQ(unknown_ids(*bytes, 260), (Ids{257, 258, 259}));
  EXPECT_EQ(unknown_ids(*bytes, 100), Ids{});
  const auto holes = parse_tokenizer(
      R"({"added_tokens":[{"id":5,"content":"</s>","special":true}],"decoder":{"type":"ByteLevel"},)"
      R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"c":3},"merges":[]}})",
      "t.json");
  EXPECT_EQ(unknown_ids(*holes, 8), (Ids{2, 4, 6, 7}));
}

}  // namespace
}  // namespace strata
