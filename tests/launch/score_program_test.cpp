// `strata score` and `strata chat` as their users run them, on a small model of bytes.
#include <gtest/gtest.h>

#include <map>

#include <nlohmann/json.hpp>

#include "tests/launch/byte_model_program.h"

namespace strata {
namespace {

using nlohmann::json;

class ScoreProgram : public test::ByteModelProgram {};

TEST_F(ScoreProgram, ScoresTheSameOnAnyNumberOfRanks) {
  std::string rows;
  for (int i = 0; i < 7; ++i) {
    rows += json{{"text", std::string(static_cast<std::size_t>(2 + 40 * i), 'a')}}.dump();
    rows += '\n';
  }
  rows += R"({"id":"answer","context":"one and ","continuation":"two"})"
          "\n"
          R"({"id":"nothing","context":"one","continuation":""})"
          "\n";
  test::write_file(directory_ / "rows.jsonl", rows);
  const auto score = [&](const char* out, int ranks) {
    const auto done = run({"score", "--model", path("model"), "--data", path("rows.jsonl"), "--out",
                           path(out), "--compute", "fp32", "--dram", "1GiB", "--batch", "3"},
                          ranks);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    EXPECT_NE(done.errors.find("perplexity"), std::string::npos) << done.errors;
    return results(out);
  };
  const auto one = score("one", 1);
  ASSERT_EQ(one.size(), 9u);
  EXPECT_EQ(one.at("answer")["tokens"], 4) << "the space belongs to it";
  EXPECT_EQ(one.at("6")["tokens"], 241) << "in pieces of 128 tokens";
  EXPECT_TRUE(one.at("nothing").contains("error"));
  const auto two = score("two", 2);
  ASSERT_EQ(two.size(), one.size());
  for (const auto& [id, result] : one) {
    if (result.contains("error")) continue;
    EXPECT_NEAR(two.at(id)["log_likelihood"].get<double>(), result["log_likelihood"].get<double>(),
                1e-3);
  }
}

TEST_F(ScoreProgram, RefusesBadRowsBeforeWork) {
  test::write_file(directory_ / "bad.jsonl", "{\"text\":\"ab\"}\n{\"txt\":\"ab\"}\n");
  const auto done =
      run({"score", "--model", path("model"), "--data", path("bad.jsonl"), "--out", path("out")});
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_NE(done.errors.find("bad.jsonl:2"), std::string::npos) << done.errors;
  EXPECT_FALSE(std::filesystem::exists(directory_ / "out"));
}

TEST_F(ScoreProgram, ChatsTurnByTurn) {
  test::write_file(directory_ / "turns", "Hello\n\n/reset\nHello\nMore\n");
  const auto said = [&](int ranks) {
    std::vector<std::string> command = {"sh", "-c", "exec \"$@\" < \"$0\"", path("turns")};
    const std::vector<std::string> start = launcher(ranks);
    command.insert(command.end(), start.begin(), start.end());
    for (const char* word :
         {STRATA_PROGRAM, "chat", "--compute", "fp32", "--dram", "1GiB", "--greedy",
          "--max_new_tokens", "5", "--chat_template", "plain", "--model"}) {
      command.emplace_back(word);
    }
    command.push_back(path("model"));
    const auto done = test::run_program(command);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    return done.output;
  };
  const std::string one = said(1);
  const auto end = one.find('\n');
  ASSERT_NE(end, std::string::npos);
  EXPECT_EQ(one.compare(0, end + 1, one, end + 1, end + 1), 0) << "anew is the same again: " << one;
  EXPECT_GT(one.size(), 2 * (end + 1)) << "three answers";
  EXPECT_EQ(said(2), one);
}

}  // namespace
}  // namespace strata
