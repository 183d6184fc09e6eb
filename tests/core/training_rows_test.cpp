#include "core/text/training_rows.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/error.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

const std::filesystem::path kTokenizers =
    std::filesystem::path(STRATA_SOURCE_DIR) / "tests/golden/tokenizers";

/// The text of a document, with what is trained in braces. "$" ends a document of the byte
/// tokenizer.
std::string shown(const Document& document, const Tokenizer& tokenizer) {
  EXPECT_EQ(document.ids.size(), document.trained.size());
  std::string text;
  for (std::size_t i = 0; i < document.ids.size();) {
    std::size_t end = i;
    while (end < document.ids.size() && document.trained[end] == document.trained[i]) ++end;
    const std::string piece = tokenizer.decode(std::span(document.ids).subspan(i, end - i), false);
    text += document.trained[i] == 1 ? "{" + piece + "}" : piece;
    i = end;
  }
  for (std::size_t at = 0; (at = text.find("<|endoftext|>", at)) != std::string::npos;) {
    text.replace(at, 13, "$");
  }
  return text;
}

class Rows : public testing::Test {
 protected:
  std::string read(RowForm form, std::string_view line, RowOptions options = {}) const {
    Document document;
    RowReader(form, *tokenizer_, &plain_, options).read(line, "f.jsonl:7", document);
    return shown(document, *tokenizer_);
  }
  void refuses(RowForm form, const std::string& line, std::vector<std::string> parts) const {
    parts.insert(parts.begin(), "f.jsonl:7: ");
    test::expect_message<FormatError>([&] { read(form, line); }, parts);
  }

  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
  ChatTemplate plain_ = ChatTemplate::choose(*tokenizer_, {}, "plain");
};

TEST_F(Rows, OfTextCountWhole) {
  EXPECT_EQ(read(RowForm::kText, R"({"text": "a\n\u00e9", "id": 3})"), "{a\n\u00e9$}");
  EXPECT_EQ(read(RowForm::kText, R"({"text": ""})"), "");
  EXPECT_EQ(read(RowForm::kText, " \r\n"), "");
}

TEST_F(Rows, OfPromptsCountTheirAnswers) {
  const char* line = R"({"prompt": "2+2=", "completion": "4"})";
  EXPECT_EQ(read(RowForm::kCompletion, line), "2+2={4$}");
  EXPECT_EQ(read(RowForm::kCompletion, line, {.train_on_inputs = true}), "{2+2=4$}");
  EXPECT_EQ(read(RowForm::kCompletion, R"({"completion": "", "prompt": "", "x": {"y": [1]}})"),
            "{$}");
}

TEST_F(Rows, OfAlpacaGetItsPrompts) {
  const std::string with_input =
      "Below is an instruction that describes a task, paired with an input that provides further "
      "context. Write a response that appropriately completes the request.\n\n### "
      "Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n{3$}";
  const std::string without =
      "Below is an instruction that describes a task. Write a response that appropriately "
      "completes the request.\n\n### Instruction:\nAdd\n\n### Response:\n{3$}";
  EXPECT_EQ(read(RowForm::kAlpaca, R"({"instruction": "Add", "input": "1 2", "output": "3"})"),
            with_input);
  for (const char* input : {R"("input": "",)", R"("input": null,)", ""}) {
    EXPECT_EQ(read(RowForm::kAlpaca,
                   std::string("{") + input + R"("instruction": "Add", "output": "3"})"),
              without);
  }
}

TEST_F(Rows, OfChatsCountTheAssistantsTurns) {
  const char* messages =
      R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
          {"role": "assistant", "content": "A", "tool_calls": null},
          {"content": "V", "role": "user"}, {"role": "assistant", "content": "B"}], "id": [1]})";
  const char* expected = "S\n\nUser: U\nAssistant:{ A$}\nUser: V\nAssistant:{ B$}\n";
  EXPECT_EQ(read(RowForm::kMessages, messages), expected);
  const char* sharegpt =
      R"({"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "U"},
          {"from": "gpt", "value": "A"}, {"from": "user", "value": "V"},
          {"from": "assistant", "value": "B", "weight": 1}], "id": "x"})";
  EXPECT_EQ(read(RowForm::kShareGpt, sharegpt), expected);
  EXPECT_EQ(read(RowForm::kShareGpt, sharegpt, {.train_on_inputs = true}),
            "{S\n\nUser: U\nAssistant: A$\nUser: V\nAssistant: B$\n}");
}

TEST_F(Rows, SpellingSpecialTokensAreText) {
  Document document;
  const RowReader reader(RowForm::kText, *tokenizer_, nullptr);
  reader.read(R"({"text": "<|endoftext|>"})", "w", document);
  EXPECT_EQ(document.ids.size(), 14u);
}

TEST_F(Rows, AppendToTheDocument) {
  Document document;
  const RowReader reader(RowForm::kText, *tokenizer_, nullptr);
  reader.read(R"({"text": "a"})", "w", document);
  reader.read(R"({"text": "b"})", "w", document);
  EXPECT_EQ(shown(document, *tokenizer_), "{a$b$}");
}

TEST_F(Rows, TellTheirForm) {
  const auto form = [](const char* line) { return detect_row_form(line, "f.jsonl:1"); };
  EXPECT_EQ(form(R"({"text": ""})"), RowForm::kText);
  EXPECT_EQ(form(R"({"completion": "", "prompt": ""})"), RowForm::kCompletion);
  EXPECT_EQ(form(R"({"instruction": "", "output": "", "text": ""})"), RowForm::kAlpaca);
  EXPECT_EQ(form(R"({"prompt": "", "messages": []})"), RowForm::kMessages);
  EXPECT_EQ(form(R"({"conversations": []})"), RowForm::kShareGpt);
  test::expect_message<FormatError>([&] { form(R"({"prompt": ""})"); },
                                    {"f.jsonl:1: ", "rename", "{\"text\"}", "conversations"});
  EXPECT_THROW(form(""), FormatError);
}

TEST_F(Rows, ThatLackAFieldSayWhich) {
  refuses(RowForm::kText, "{}", {"\"text\" is missing", "add the field"});
  refuses(RowForm::kCompletion, R"({"prompt": "a"})", {"\"completion\" is missing"});
  refuses(RowForm::kText, R"({"prompt": "a", "completion": "b"})",
          {"\"text\" is missing", "this one is {\"prompt\",\"completion\"}", "a file of its own"});
  refuses(RowForm::kText, R"({"text": null})", {"\"text\" is null, not a string"});
  refuses(RowForm::kText, R"({"text": 3})", {"\"text\" is a number"});
  refuses(RowForm::kCompletion, R"({"prompt": [], "completion": "b"})", {"\"prompt\" is a list"});
  refuses(RowForm::kAlpaca, R"({"instruction": "a", "input": {}, "output": "b"})",
          {"\"input\" is an object"});
}

TEST_F(Rows, OfChatsThatCannotBeLearntAreRefused) {
  const auto chat = [](const std::string& turns) { return "{\"messages\": [" + turns + "]}"; };
  const std::string user = R"({"role": "user", "content": "U"})";
  refuses(RowForm::kMessages, chat(user), {"no turn is the assistant's"});
  refuses(RowForm::kMessages, chat(""), {"no turn is the assistant's"});
  refuses(RowForm::kMessages, chat(user + R"(, {"role": "tool", "content": "22"})"),
          {"messages[1]", "\"tool\"", "system, user and assistant"});
  refuses(RowForm::kMessages, chat(R"({"role": "assistant", "content": null})"),
          {"\"content\" of messages[0] is null"});
  refuses(RowForm::kMessages, chat(R"({"role": "assistant", "content": [{"type": "text"}]})"),
          {"\"content\" of messages[0] is a list"});
  refuses(RowForm::kMessages, chat(R"({"role": "assistant"})"),
          {"\"content\" of messages[0] is missing"});
  refuses(RowForm::kMessages, chat("3"), {"messages[0] is a number, not an object"});
  refuses(RowForm::kMessages, R"({"messages": "a"})", {"\"messages\" is a string"});
  refuses(RowForm::kShareGpt, R"({"conversations": [{"from": "bing", "value": "x"}]})",
          {"conversations[0]", "\"bing\"", "human"});
  refuses(RowForm::kShareGpt, R"({"conversations": [{"role": "user", "content": "x"}]})",
          {"\"from\" of conversations[0] is missing"});
  const auto mistral = read_tokenizer(kTokenizers / "mistral.json");
  const auto alternating = ChatTemplate::choose(*mistral, {}, "mistral-v1");
  const RowReader reader(RowForm::kMessages, *mistral, &alternating);
  Document document;
  test::expect_message<FormatError>(
      [&] { reader.read(chat(R"({"role": "assistant", "content": "a"})"), "f.jsonl:9", document); },
      {"f.jsonl:9: turn 1", "\"assistant\"", "\"user\""});
}

TEST_F(Rows, ThatAreNoGoodJsonAreRefused) {
  refuses(RowForm::kText, R"({"text": "a", "text": "b"})", {"\"text\" occurs twice"});
  refuses(RowForm::kText, R"({"text": "a", "x": {"y": 1, "y": 2}})", {"\"y\" occurs twice"});
  refuses(RowForm::kText, R"(["text"])", {"not a JSON object"});
  refuses(RowForm::kText, R"("text")", {"not a JSON object"});
  refuses(RowForm::kText, R"({"text": "a")", {"not valid JSON"});
  refuses(RowForm::kText, R"({"text": "a"} {})", {"not valid JSON"});
  refuses(RowForm::kText, "{\"text\": \"a\xff\"}",
          {"not valid JSON: column 12: syntax error", "last read: '\"a\\xff'"});
  refuses(RowForm::kText, std::string("{\"text\": \"a\"}\0", 14), {"zero byte"});
  refuses(RowForm::kText, R"({"text": "\ud800"})", {"not valid JSON"});
  refuses(RowForm::kText, R"({"text": "a", "x": )" + std::string(100'000, '['),
          {"nested deeper than 64"});
}

TEST(RowsOfSentencePiece, BeginWithBosAndPutNoSpaceBeforeAnAnswer) {
  const auto tokenizer = read_tokenizer(kTokenizers / "llama2.json");
  Document document;
  RowReader(RowForm::kText, *tokenizer, nullptr).read(R"({"text": "free"})", "w", document);
  EXPECT_EQ(document.ids.front(), tokenizer->find("<s>"));
  EXPECT_EQ(document.ids.back(), tokenizer->find("</s>"));
  document = {};
  const RowReader reader(RowForm::kCompletion, *tokenizer, nullptr);
  reader.read(R"({"prompt": "free soft", "completion": " software"})", "w", document);
  std::vector<std::int32_t> whole = tokenizer->encode("free soft software", {.add_special = true});
  whole.push_back(tokenizer->end_of_document());
  EXPECT_EQ(document.ids, whole);
  EXPECT_EQ(shown(document, *tokenizer).find("free soft{"),
            shown(document, *tokenizer).find("free"));
  EXPECT_EQ(document.trained.front(), 0);
}

}  // namespace
}  // namespace strata
