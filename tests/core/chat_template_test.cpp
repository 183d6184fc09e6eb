// Against strings and ids of `apply_chat_template`: tests/golden/make_chat_fixtures.py.
#include "core/text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;
using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kGolden = fs::path(STRATA_SOURCE_DIR) / "tests/golden";

json fixture(const std::string& name) {
  return json::parse(test::read_file(kGolden / "chat" / (name + ".json")));
}

/// A fixture's tokenizer with more special tokens.
std::unique_ptr<Tokenizer> tokenizer_with(const std::string& family, const json& added) {
  json document = json::parse(test::read_file(kGolden / "tokenizers" / (family + ".json")));
  for (const json& token : added) document["added_tokens"].push_back(token);
  return parse_tokenizer(document.dump(), family);
}

std::unique_ptr<Tokenizer> tokenizer_of(const json& facts) {
  return tokenizer_with(facts["tokenizer"], facts["added"]);
}

/// im_start and im_end.
std::unique_ptr<Tokenizer> qwen2() { return tokenizer_with("qwen2", json::array()); }

std::vector<ChatMessage> messages_of(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& message : list) messages.push_back({message["role"], message["content"]});
  return messages;
}

std::string text_of(const std::vector<ChatPart>& parts) {
  std::string text;
  for (const ChatPart& part : parts) text += part.text;
  return text;
}

std::string learned(const std::vector<ChatPart>& parts) {
  std::string text;
  for (const ChatPart& part : parts) {
    if (part.assistant) text += part.text;
  }
  return text;
}

Ids encode(const std::vector<ChatPart>& parts, const Tokenizer& tokenizer) {
  Ids ids;
  TextStart start = TextStart::kBeginning;
  for (const ChatPart& part : parts) {
    tokenizer.encode(part.text, {.parse_special = part.special, .start = start}, ids);
    start = part.special ? TextStart::kAfterToken : TextStart::kWithin;
  }
  return ids;
}

class ChatGolden : public testing::TestWithParam<const char*> {};

TEST_P(ChatGolden, GivesTheStringsAndIdsOfApplyChatTemplate) {
  const json facts = fixture(GetParam());
  const auto tokenizer = tokenizer_of(facts);
  const auto chat = ChatTemplate::choose(*tokenizer, {}, GetParam());
  EXPECT_EQ(chat.name(), GetParam());
  int compared = 0;
  for (const json& one : facts["cases"]) {
    const auto messages = messages_of(one["messages"]);
    const bool prompt = one["add_generation_prompt"];
    if (one["text"].is_null()) {
      EXPECT_THROW(chat.render(messages, prompt), FormatError) << one;
      continue;
    }
    const auto parts = chat.render(messages, prompt);
    EXPECT_EQ(text_of(parts), one["text"].get<std::string>());
    if (one["ids"].is_null()) continue;
    EXPECT_EQ(encode(parts, *tokenizer), one["ids"].get<Ids>()) << one["text"];
    ++compared;
  }
  EXPECT_GE(compared, 4);
}

INSTANTIATE_TEST_SUITE_P(Templates, ChatGolden,
                         testing::Values("chatml", "qwen2", "qwen2.5", "qwen3", "llama-2",
                                         "llama-3", "llama-3.1", "mistral-v0", "mistral-v1",
                                         "mistral-v3", "mistral-v3-tekken", "mistral-v7"),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& c : name) c = std::isalnum(c) != 0 ? c : '_';
                           return name;
                         });

TEST(ChatTemplate, MarksTheAssistantsWordsAndTheTokenThatEndsThem) {
  const std::vector<ChatMessage> messages = {
      {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}, {"assistant", "See you"}};
  const auto learns = [&](const char* name) {
    const auto tokenizer = tokenizer_of(fixture(name));
    return learned(ChatTemplate::choose(*tokenizer, {}, name).render(messages, true));
  };
  EXPECT_EQ(learns("qwen2.5"), "Hello<|im_end|>See you<|im_end|>");
  EXPECT_EQ(learns("qwen3"), "Hello<|im_end|><think>\n\n</think>\n\nSee you<|im_end|>");
  EXPECT_EQ(learns("llama-3"), "Hello<|eot_id|>See you<|eot_id|>");
  EXPECT_EQ(learns("llama-2"), " Hello </s> See you </s>");
  EXPECT_EQ(learns("mistral-v3"), " Hello</s> See you</s>");
}

TEST(ChatTemplate, ParsesNoSpecialTokensInWhatPeopleWrote) {
  const auto tokenizer = qwen2();
  const auto chat = ChatTemplate::choose(*tokenizer, {}, "chatml");
  const std::vector<ChatMessage> messages = {{"user", "<|im_end|>"}, {"assistant", "ok"}};
  const Ids ids = encode(chat.render(messages, false), *tokenizer);
  EXPECT_EQ(std::ranges::count(ids, *tokenizer->find("<|im_end|>")), 2);
}

TEST(ChatTemplate, PlainNamesTheSpeakersAndEndsAnswersWithTheEndOfADocument) {
  const auto tokenizer = make_byte_tokenizer();
  const auto chat = ChatTemplate::choose(*tokenizer, {}, "plain");
  const std::vector<ChatMessage> messages = {
      {"system", "Be kind."}, {"user", "Hi"}, {"assistant", "Hello"}};
  const auto parts = chat.render(messages, true);
  EXPECT_EQ(text_of(parts), "Be kind.\n\nUser: Hi\nAssistant: Hello<|endoftext|>\nAssistant:");
  EXPECT_EQ(learned(parts), " Hello<|endoftext|>");
  const Ids ids = encode(parts, *tokenizer);
  EXPECT_EQ(std::ranges::count(ids, tokenizer->end_of_document()), 1);
}

TEST(ChatTemplate, IsChosenByTheSpecialTokensWhereTheModelHasNone) {
  EXPECT_EQ(ChatTemplate::choose(*qwen2(), {}).name(), "chatml");
  const auto llama3 = tokenizer_of(fixture("llama-3"));
  EXPECT_EQ(ChatTemplate::choose(*llama3, {}).name(), "llama-3");
  const auto gpt2 = tokenizer_with("gpt2", json::array());
  test::expect_message<UsageError>([&] { ChatTemplate::choose(*gpt2, {.source = "m"}); },
                                   {"m: has no chat template", "<|im_start|>",
                                    "<|start_header_id|>", "--chat_template", "plain"});
}

constexpr const char* kTurns =
    "{%- for message in messages %}\n"
    "  {{- \"<|im_start|>\" + message.role + '\n' + message['content'] + '<|im_end|>' + \"\\n\" "
    "-}}\n"
    "{%- endfor %}";

TEST(ChatTemplate, IsRecognisedHoweverItsTextIsLaidOut) {
  const auto tokenizer = qwen2();
  const auto chosen = [&](const std::string& text) {
    return ChatTemplate::choose(*tokenizer, {.jinja = text, .source = "c.json"});
  };
  EXPECT_EQ(chosen(kTurns).name(), "chatml");
  const std::string default_system =
      "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nIt\\'s "
      "\\\\me.<|im_end|>\\n' "
      "}}{% endif %}";
  const std::vector<ChatMessage> messages = {{"user", "Hi"}};
  EXPECT_EQ(text_of(chosen(default_system + kTurns).render(messages, false)),
            "<|im_start|>system\nIt's \\me.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
  const auto refused = [&](const std::string& text) {
    test::expect_message<UsageError>([&] { chosen(text); },
                                     {"c.json: its chat template", "--chat_template", "chatml"});
  };
  refused("{{ messages }}");
  refused(std::string(kTurns) + "{{ '<|im_sep|>' }}");
  refused("{{ '<|im_start|>system\\n' + 'pieced ' + 'together<|im_end|>\\n' }}" + default_system +
          "{{ '<|im_start|>system\\nAnother.<|im_end|>\\n' }}" + kTurns);
}

TEST(ChatTemplate, OfAModelIsRecognised) {
  const char* directory = std::getenv("STRATA_CHAT_TEMPLATES");
  if (directory == nullptr) GTEST_SKIP() << "STRATA_CHAT_TEMPLATES names no templates of models";
  for (const auto& entry : fs::directory_iterator(kGolden / "chat")) {
    const std::string name = entry.path().stem().string();
    const json facts = fixture(name);
    const std::string jinja = test::read_file(fs::path(directory) / (name + ".jinja"));
    const auto tokenizer = tokenizer_of(facts);
    const ChatFacts model = {
        .jinja = jinja, .bos = facts["bos"], .eos = facts["eos"], .source = name};
    const auto chat = ChatTemplate::choose(*tokenizer, model);
    EXPECT_EQ(chat.name(), name);
    const json& one = facts["cases"][0];
    EXPECT_EQ(text_of(chat.render(messages_of(one["messages"]), false)), one["text"]);
  }
}

TEST(ChatTemplate, OfAnotherModelIsRefused) {
  const char* directory = std::getenv("STRATA_CHAT_TEMPLATES");
  if (directory == nullptr) GTEST_SKIP() << "STRATA_CHAT_TEMPLATES names no templates of models";
  const auto tokenizer = tokenizer_with("qwen2", fixture("llama-3")["added"]);
  for (const auto& entry : fs::directory_iterator(fs::path(directory) / "refused")) {
    const ChatFacts model = {.jinja = test::read_file(entry.path())};
    EXPECT_THROW(ChatTemplate::choose(*tokenizer, model), UsageError) << entry.path();
  }
}

TEST(ChatTemplate, NeedsTheTokensOfTheTemplateThatWasNamed) {
  const auto tokenizer = qwen2();
  test::expect_message<UsageError>(
      [&] { ChatTemplate::choose(*tokenizer, {.source = "m"}, "llama-3"); },
      {"m: ", "llama-3", "<|start_header_id|>", "--chat_template"});
  test::expect_message<UsageError>([&] { ChatTemplate::choose(*tokenizer, {}, "vicuna"); },
                                   {"--chat_template: \"vicuna\"", "known are chatml"});
}

TEST(ChatTemplate, OfADirectoryIsInItsSettingsOrAFileOfItsOwn) {
  const test::TemporaryDirectory directory;
  const auto tokenizer = qwen2();
  EXPECT_EQ(read_chat_template(directory.path(), *tokenizer).name(), "chatml");
  const json named = {{{"name", "tool_use"}, {"template", "x"}},
                      {{"name", "default"}, {"template", kTurns}}};
  test::write_file(
      directory / "tokenizer_config.json",
      json{{"chat_template", named}, {"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}}
          .dump());
  const ChatFacts facts = read_chat_facts(directory.path());
  EXPECT_EQ(facts.jinja, kTurns);
  EXPECT_EQ(facts.bos, "<s>");
  EXPECT_EQ(facts.eos, "</s>");
  test::write_file(directory / "chat_template.jinja", "{{ 1 }}");
  test::expect_message<UsageError>(
      [&] { read_chat_template(directory.path(), *tokenizer); },
      {(directory / "chat_template.jinja").string() + ": its chat template"});
  test::write_file(directory / "tokenizer_config.json", R"({"chat_template": [1]})");
  EXPECT_THROW(read_chat_facts(directory.path()), FormatError);
}

TEST(ChatTemplate, RefusesRolesItDoesNotKnow) {
  const auto chat = ChatTemplate::choose(*qwen2(), {}, "chatml");
  test::expect_message<FormatError>(
      [&] {
        chat.render(std::vector<ChatMessage>{{"tool", "22"}}, false);
      },
      {"a turn is of the role \"tool\"", "system, user and assistant"});
  EXPECT_THROW(chat.render({}, false), FormatError);
}

}  // namespace
}  // namespace strata
