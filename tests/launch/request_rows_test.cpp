#include "launch/generation/request_rows.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "launch/generation/request_reader.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::expect_message;

RequestRow parse(std::string_view line) { return parse_request_row(line, "rows.jsonl:3"); }

void expect_refused(std::string_view line, std::vector<std::string> parts) {
  parts.insert(parts.begin(), "rows.jsonl:3: ");
  SCOPED_TRACE(line);
  expect_message<FormatError>([&] { parse(line); }, parts);
}

std::string chat_row(const std::string& body) {
  return R"({"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{)"
         R"("messages":[{"role":"user","content":"hi"}])" +
         body + "}}";
}

TEST(RequestRows, APlainRowHasWhatItSays) {
  const RequestRow row = parse(
      R"({"id":"x","prompt":"Once","max_tokens":5,"stop":["\n","END"],"seed":18446744073709551615,)"
      R"("temperature":0.5,"top_k":-1,"top_p":0.25,"min_p":0.125,"repetition_penalty":1.5,)"
      R"("stop_token_ids":[2,7],"logprobs":true})");
  EXPECT_EQ(row.form, RequestForm::kPlain);
  EXPECT_EQ(row.id, "x");
  EXPECT_FALSE(row.id_is_number);
  EXPECT_EQ(row.prompt, "Once");
  EXPECT_EQ(row.overrides.max_tokens, 5);
  EXPECT_EQ(row.overrides.stop, (std::vector<std::string>{"\n", "END"}));
  EXPECT_EQ(row.overrides.seed, 18446744073709551615u);
  EXPECT_EQ(row.overrides.temperature, 0.5);
  EXPECT_EQ(row.overrides.top_k, 0);
  EXPECT_EQ(row.overrides.top_p, 0.25);
  EXPECT_EQ(row.overrides.min_p, 0.125);
  EXPECT_EQ(row.overrides.repetition_penalty, 1.5);
  EXPECT_EQ(row.overrides.stop_ids, (std::vector<std::int32_t>{2, 7}));
  EXPECT_EQ(row.overrides.log_probabilities, true);
}

TEST(RequestRows, WhatARowDoesNotSayIsLeftToFlags) {
  const RequestRow row = parse(R"({"id":12,"prompt":"","seed":null,"stop":null})");
  EXPECT_EQ(row.id, "12");
  EXPECT_TRUE(row.id_is_number);
  EXPECT_EQ(row.prompt, "");
  EXPECT_FALSE(row.overrides.seed || row.overrides.max_tokens || row.overrides.temperature ||
               row.overrides.log_probabilities);
  EXPECT_TRUE(row.overrides.stop.empty());
}

TEST(RequestRows, MessagesMayBeInParts) {
  const RequestRow row = parse(
      R"({"messages":[{"role":"developer","content":"Be short."},)"
      R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})");
  ASSERT_EQ(row.messages.size(), 2u);
  EXPECT_EQ(row.messages[0].role, "system");
  EXPECT_EQ(row.messages[0].content, "Be short.");
  EXPECT_EQ(row.messages[1].content, "ab");
  expect_refused(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
                 {"\"messages[0].content\"", "image_url"});
  expect_refused(R"({"messages":[{"role":"tool","content":"x"}]})",
                 {"messages[0].role", "system, user and assistant"});
  expect_refused(R"({"messages":[{"role":"user"}]})", {"messages[0].content", "null"});
  expect_refused(R"({"messages":[]})", {"\"messages\" is []"});
}

TEST(RequestRows, RowsOfBatchesAreKnownByTheirUrl) {
  const RequestRow chat =
      parse(chat_row(R"(,"model":"m","max_completion_tokens":9,"n":1,"stream":false,"tools":[],)"
                     R"("presence_penalty":0.0,"user":"u","response_format":{"type":"text"})"));
  EXPECT_EQ(chat.form, RequestForm::kChatBatch);
  EXPECT_EQ(chat.id, "a");
  EXPECT_EQ(chat.model, "m");
  EXPECT_EQ(chat.overrides.max_tokens, 9);
  const RequestRow completion = parse(
      R"({"custom_id":"b","method":"POST","url":"/v1/completions","body":{"prompt":[1,2],"logprobs":0}})");
  EXPECT_EQ(completion.form, RequestForm::kCompletionBatch);
  EXPECT_EQ(completion.prompt_ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(completion.overrides.log_probabilities, true);
}

TEST(RequestRows, WhatABatchAsksForAndDoesNotGetIsAnError) {
  expect_refused(chat_row(R"(,"n":2)"), {"\"n\" is 2", "other ids"});
  expect_refused(chat_row(R"(,"stream":true)"), {"\"stream\" is true", "remove it"});
  expect_refused(chat_row(R"(,"frequency_penalty":0.5)"), {"\"frequency_penalty\" is 0.5"});
  expect_refused(chat_row(R"(,"top_logprobs":3)"), {"\"top_logprobs\" is 3"});
  expect_refused(chat_row(R"(,"tools":[{"type":"function"}])"), {"\"tools\""});
  expect_refused(chat_row(R"(,"response_format":{"type":"json_object"})"), {"json_object"});
  expect_refused(chat_row(R"(,"prompt":"x")"), {"\"prompt\" is not known"});
  expect_refused(R"({"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}})",
                 {"/v1/embeddings", "/v1/completions"});
  expect_refused(R"({"custom_id":"a","method":"POST","url":"/v1/completions"})",
                 {"has no \"body\""});
  expect_refused(R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{}})",
                 {"has no \"prompt\""});
}

TEST(RequestRows, MistakesNameKeyAndRemedy) {
  expect_refused(R"({"prompt":"x","max_token":3})",
                 {"\"max_token\" is not known", "did you mean \"max_tokens\"?"});
  expect_refused(R"({"prompt":"x","colour":3})", {"\"colour\" is not known", "repetition_penalty"});
  expect_refused(R"({"prompt":"x","messages":[{"role":"user","content":"y"}]})",
                 {"keep one of them"});
  expect_refused(R"({"id":"x"})", {"has no \"prompt\" and no \"messages\""});
  expect_refused(R"({"prompt":7})", {"\"prompt\" is 7, not a string"});
  expect_refused(R"({"prompt":["a","b"]})", {"a list of prompts"});
  expect_refused(R"({"prompt":[1,-1]})", {"\"prompt\" is -1"});
  expect_refused(R"({"prompt":[1,18446744073709551615]})", {"18446744073709551615"});
  expect_refused(R"({"prompt":"x","max_tokens":0})", {"\"max_tokens\" is 0", "from 1"});
  expect_refused(R"({"prompt":"x","top_p":0})", {"\"top_p\" is 0"});
  expect_refused(R"({"prompt":"x","temperature":"1"})", {"\"temperature\" is \"1\""});
  expect_refused(R"({"prompt":"x","stop":["a",""]})", {"\"stop\" has an empty string"});
  expect_refused(R"({"prompt":"x","logprobs":5})", {"\"logprobs\" is 5"});
  expect_refused(R"({"prompt":"x")", {"not valid JSON"});
  expect_refused(R"([1])", {"not a JSON object"});
  expect_refused(R"({"prompt":"x","prompt":"y"})", {"occurs twice"});
}

class RequestFile : public testing::Test {
 protected:
  std::filesystem::path write(std::string_view text) {
    return test::write_file(directory_ / "rows.jsonl", text);
  }
  test::TemporaryDirectory directory_;
};

TEST_F(RequestFile, BlankLinesAreNoRows) {
  RequestReader reader(write("\n{\"prompt\":\"a\"}\r\n  \n{\"id\":\"z\",\"prompt\":\"b\"}"), false);
  auto row = reader.next();
  ASSERT_TRUE(row);
  EXPECT_EQ(row->name(), "0");
  EXPECT_TRUE(row->where.ends_with("rows.jsonl:2")) << row->where;
  const std::uint64_t first = row->fingerprint;
  row = reader.next();
  ASSERT_TRUE(row);
  EXPECT_EQ(row->name(), "z");
  EXPECT_EQ(row->number, 1);
  EXPECT_TRUE(row->where.ends_with("rows.jsonl:4")) << row->where;
  EXPECT_NE(row->fingerprint, first);
  EXPECT_FALSE(reader.next());
}

TEST_F(RequestFile, LinesMayBeLongerThanAPiece) {
  const std::string text(300'000, 'x');
  RequestReader reader(write("{\"prompt\":\"" + text + "\"}\n{\"prompt\":\"b\"}\n"), false);
  EXPECT_EQ(reader.next()->row.prompt, text);
  EXPECT_EQ(reader.next()->row.prompt, "b");
  EXPECT_FALSE(reader.next());
}

TEST_F(RequestFile, BadRowsEndTheWorkUnlessTheyArePassedOver) {
  const auto path = write("{\"prompt\":\"a\"}\nnonsense\n{\"prompt\":\"b\"}\n{\"prompt\":\n");
  RequestReader strict(path, false);
  strict.next();
  expect_message<FormatError>([&] { strict.next(); }, {path.string() + ":2: not valid JSON"});
  RequestReader lenient(path, true);
  EXPECT_EQ(lenient.next()->row.prompt, "a");
  const auto last = lenient.next();
  EXPECT_EQ(last->row.prompt, "b");
  EXPECT_EQ(last->number, 1);
  EXPECT_FALSE(lenient.next());
  EXPECT_EQ(lenient.bad().count, 2);
  EXPECT_NE(lenient.bad().first.find("rows.jsonl:2"), std::string::npos) << lenient.bad().first;
}

TEST_F(RequestFile, IdsOccurOnce) {
  RequestReader twice(write("{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}\n"),
                      false);
  twice.next();
  expect_message<FormatError>([&] { twice.next(); }, {"", "rows.jsonl:2", "\"a\" occurred before"});
  RequestReader number(write("{\"id\":1,\"prompt\":\"x\"}\n{\"prompt\":\"y\"}\n"), false);
  number.next();
  expect_message<FormatError>([&] { number.next(); }, {"", "rows.jsonl:2", "has no id"});
}

TEST_F(RequestFile, AFileThatIsNotThereIsNamed) {
  EXPECT_THROW(RequestReader(directory_ / "none.jsonl", false), IoError);
}

}  // namespace
}  // namespace strata
