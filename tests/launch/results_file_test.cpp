#include "launch/generation/results_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "launch/generation/result_rows.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using nlohmann::json;
using test::expect_message;

NumberedRow row(const std::string& line, std::int64_t number = 0) {
  return {.row = parse_request_row(line, "row"),
          .number = number,
          .where = "rows.jsonl:1",
          .fingerprint = 0xfedcba9876543210u + static_cast<std::uint64_t>(number)};
}
NumberedRow plain(const std::string& id, std::int64_t number = 0) {
  return row(R"({"prompt":"x","id":")" + id + "\"}", number);
}
NumberedRow batch(const std::string& url) {
  const bool chat = url.find("chat") != std::string::npos;
  const std::string ask =
      chat ? R"("messages":[{"role":"user","content":"x"}])" : R"("prompt":"x")";
  return row(R"({"custom_id":"c","method":"POST","url":")" + url + R"(","body":{"model":"m",)" +
             ask + "}}");
}

ResultRow result() {
  return {.text = "AB",
          .ids = {65, 66},
          .finish_reason = "stop",
          .prompt_tokens = 3,
          .seconds_to_first_token = 0.5,
          .seconds = 2,
          .created = 77};
}

json parsed(const NumberedRow& asked, const ResultRow& answer) {
  const auto tokenizer = make_byte_tokenizer();
  const std::string line = result_line(asked, answer, *tokenizer);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  return json::parse(line);
}

TEST(ResultRows, PlainOnesHaveWhatWasGeneratedAndWhatItTook) {
  EXPECT_EQ(parsed(plain("a"), result()),
            json::parse(R"({"id":"a","text":"AB","token_ids":[65,66],"finish_reason":"stop",)"
                        R"("prompt_tokens":3,"output_tokens":2,"time_to_first_token":0.5,)"
                        R"("seconds":2.0,"request_id":"req_fedcba9876543210"})"));
  EXPECT_EQ(parsed(row(R"({"id":12,"prompt":"x"})"), result())["id"], 12);
  EXPECT_EQ(parsed(row(R"({"prompt":"x"})", 5), result())["id"], 5);
}

TEST(ResultRows, HaveLogProbabilitiesAndErrorsWhereThereAreSome) {
  ResultRow answer = result();
  answer.log_probabilities = {-0.5f, -1.0f};
  EXPECT_EQ(parsed(plain("a"), answer)["logprobs"], json({-0.5, -1.0}));
  answer = {.finish_reason = "error", .error = "the prompt has no token"};
  EXPECT_EQ(parsed(plain("a"), answer)["error"], "the prompt has no token");
  EXPECT_EQ(parsed(plain("a"), answer)["finish_reason"], "error");
}

TEST(ResultRows, BytesThatAreNoTextAreReplaced) {
  ResultRow answer = result();
  answer.text = "a\xff";
  EXPECT_EQ(parsed(plain("a"), answer)["text"], "a\xef\xbf\xbd");
}

TEST(ResultRows, ChatsOfBatchesAreAnsweredAsByOpenAi) {
  ResultRow answer = result();
  answer.log_probabilities = {-0.5f, -1.0f};
  const json line = parsed(batch("/v1/chat/completions"), answer);
  EXPECT_EQ(line["custom_id"], "c");
  EXPECT_TRUE(line["error"].is_null());
  EXPECT_EQ(line["response"]["status_code"], 200);
  EXPECT_EQ(line["response"]["request_id"], "req_fedcba9876543210");
  const json& body = line["response"]["body"];
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["created"], 77);
  EXPECT_EQ(body["model"], "m");
  EXPECT_EQ(body["choices"][0]["message"], json({{"role", "assistant"}, {"content", "AB"}}));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"][1]["token"], "B");
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"][1]["logprob"], -1.0);
  EXPECT_EQ(body["usage"],
            json({{"prompt_tokens", 3}, {"completion_tokens", 2}, {"total_tokens", 5}}));
}

TEST(ResultRows, CompletionsOfBatchesAreAnsweredAsByOpenAi) {
  ResultRow answer = result();
  const json body = parsed(batch("/v1/completions"), answer)["response"]["body"];
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][0]["text"], "AB");
  EXPECT_TRUE(body["choices"][0]["logprobs"].is_null());
  answer = {.finish_reason = "error", .error = "too long"};
  const json failed = parsed(batch("/v1/completions"), answer);
  EXPECT_EQ(failed["response"]["status_code"], 400);
  EXPECT_EQ(failed["response"]["body"]["error"]["message"], "too long");
}

class Results : public testing::Test {
 protected:
  std::string line(const NumberedRow& asked) const {
    return result_line(asked, result(), *tokenizer_);
  }
  std::string content() const { return test::read_file(path_); }
  test::TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "out.jsonl";
  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

TEST_F(Results, GrowByWholeLines) {
  ResultsFile file(path_, false);
  file.append(line(plain("a")));
  EXPECT_EQ(content(), line(plain("a")));
  file.append(line(plain("b")));
  file.sync();
  EXPECT_EQ(content(), line(plain("a")) + line(plain("b")));
}

TEST_F(Results, GoOnBehindTheLastWholeLine) {
  const std::string whole =
      line(plain("a")) + line(row(R"({"id":3,"prompt":"x"})")) + line(batch("/v1/completions"));
  const std::string half = line(plain("b"));
  test::write_file(path_, whole + half.substr(0, half.size() / 2));
  ResultsFile file(path_, true);
  EXPECT_EQ(file.finished().count(), 3u);
  EXPECT_TRUE(file.finished().has(plain("a")));
  EXPECT_TRUE(file.finished().has(row(R"({"id":"3","prompt":"x"})")));
  EXPECT_TRUE(file.finished().has(batch("/v1/completions")));
  EXPECT_FALSE(file.finished().has(plain("b")));
  EXPECT_NO_THROW(file.finished().expect_all(3));
  file.append(line(plain("b")));
  EXPECT_EQ(content(), whole + line(plain("b")));
}

TEST_F(Results, AreNotMixedWithThoseOfOtherRows) {
  test::write_file(path_, line(plain("a")));
  const ResultsFile file(path_, true);
  expect_message<UsageError>([&] { file.finished().has(plain("a", 1)); },
                             {"--resume: " + path_.string(), "\"a\"", "rows.jsonl:1"});
  expect_message<UsageError>([&] { file.finished().expect_all(0); },
                             {"--resume: 1 of the 1 results in " + path_.string()});
}

TEST_F(Results, OtherRanksKnowWhatIsFinished) {
  FinishedRows here("out");
  here.add("a", row("{\"prompt\":\"x\"}").fingerprint);
  here.add("b", 2);
  const FinishedRows there("out", here.bytes());
  EXPECT_EQ(there.count(), 2u);
  EXPECT_TRUE(there.has(plain("a")));
  EXPECT_FALSE(there.has(plain("c")));
  EXPECT_THROW(there.has(plain("b")), UsageError);
}

TEST_F(Results, AFileThatIsThereIsLeftAlone) {
  test::write_file(path_, line(plain("a")));
  expect_message<UsageError>([&] { ResultsFile(path_, false); },
                             {"--out: " + path_.string(), "--resume"});
  for (const std::string text : {"Dear diary,\n", "no line at all", "{\"id\":1}\n",
                                 "{\"id\":\"a\",\"request_id\":\"req_xyz\"}\n"}) {
    SCOPED_TRACE(text);
    test::write_file(path_, text);
    expect_message<FormatError>([&] { ResultsFile(path_, true); }, {path_.string() + ":1: not "});
    EXPECT_EQ(content(), text);
  }
  test::write_file(path_, line(plain("a")) + line(plain("a")));
  expect_message<FormatError>([&] { ResultsFile(path_, true); }, {path_.string() + ":2: a second"});
}

TEST_F(Results, OneProcessWritesAtATime) {
  const ResultsFile first(path_, false);
  expect_message<UsageError>([&] { ResultsFile(path_, true); }, {"--out: another process"});
}

TEST_F(Results, AreRefusedWhereNoFileCanBe) {
  expect_message<UsageError>([&] { ResultsFile(directory_ / "none" / "out", false); },
                             {"--out: ", "No such file or directory"});
  EXPECT_NO_THROW(ResultsFile("/dev/null", false).append("x\n"));
  EXPECT_THROW(ResultsFile("/dev/null", true), UsageError);
}

}  // namespace
}  // namespace strata
