#include "launch/generation/row_feed.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "parallel/thread_communicator.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using nlohmann::json;

/// Continues every request with the bytes of `text`, one a pass, as TextGeneration would.
void serve(RowFeed& feed, std::string_view text) {
  while (std::optional<GenerationRequest> request = feed.next()) {
    GenerationResult result;
    if (request->prompt.empty()) {
      request->on_finish({.reason = FinishReason::kError, .error = "no token"});
      feed.exchange();
      continue;
    }
    for (const char byte : text.substr(0, static_cast<std::size_t>(request->max_new_tokens))) {
      const SampledToken token{.id = static_cast<unsigned char>(byte)};
      result.ids.push_back(token.id);
      if (!request->on_token(token)) continue;
      result.reason = FinishReason::kStop;
      break;
    }
    request->on_finish(std::move(result));
    feed.exchange();
  }
}

class Feed : public testing::Test {
 protected:
  std::filesystem::path write(std::string_view rows) {
    return test::write_file(directory_ / "rows.jsonl", rows);
  }
  /// The results of a job, by line.
  std::vector<json> run(int ranks, std::string_view text, bool resume = false) {
    test::run_on_threads(ranks, [&](Communicator& world) {
      std::optional<ResultsFile> results;
      if (world.rank() == 0) results.emplace(directory_ / "out.jsonl", resume);
      const FinishedRows finished(
          "out.jsonl",
          world.gather_bytes(results ? results->finished().bytes() : std::vector<std::byte>())
              .front());
      PromptEncoder prompts(*tokenizer_,
                            [&] { return ChatTemplate::choose(*tokenizer_, {}, "plain"); });
      OwnRows own(directory_ / "rows.jsonl", false, finished, world);
      RowFeed feed(
          world, *tokenizer_, prompts, {.settings = settings_, .most_tokens = 64},
          [&] { return own.next(); }, results ? &*results : nullptr);
      serve(feed, text);
      const int left = static_cast<int>(own.waiting()) % ranks;
      if (left != 0 && world.rank() >= left) feed.exchange();  // ranks with a row less
      feed.exchange();
    });
    std::vector<json> lines;
    LineReader reader(directory_ / "out.jsonl");
    while (const auto line = reader.next()) lines.push_back(json::parse(*line));
    return lines;
  }
  test::TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
  GenerationSettings settings_ = {.stop = {"END"}};
};

TEST_F(Feed, ResultsAreWhatTheirRowsAskedFor) {
  write(
      "{\"id\":\"a\",\"prompt\":\"x\"}\n"
      "{\"id\":\"b\",\"prompt\":\"x\",\"max_tokens\":2}\n"
      "{\"id\":\"c\",\"prompt\":\"x\",\"stop\":\"w\"}\n"
      "{\"id\":\"d\",\"prompt\":\"\"}\n");
  const std::vector<json> lines = run(1, "one two END three");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["text"], "one two ");
  EXPECT_EQ(lines[0]["finish_reason"], "stop");
  EXPECT_EQ(lines[0]["output_tokens"], 11);
  EXPECT_EQ(lines[0]["prompt_tokens"], 1);
  EXPECT_EQ(lines[1]["text"], "on");
  EXPECT_EQ(lines[1]["finish_reason"], "length");
  EXPECT_EQ(lines[2]["text"], "one t");
  EXPECT_EQ(lines[3]["finish_reason"], "error");
  EXPECT_EQ(lines[3]["error"], "no token");
}

TEST_F(Feed, CountsTokensOfTextsInFlight) {
  test::run_on_threads(1, [&](Communicator& world) {
    PromptEncoder prompts(*tokenizer_,
                          [&] { return ChatTemplate::choose(*tokenizer_, {}, "plain"); });
    bool given = false;
    RowFeed feed(
        world, *tokenizer_, prompts, {.settings = settings_, .most_tokens = 64},
        [&]() -> std::optional<NumberedRow> {
          if (std::exchange(given, true)) return std::nullopt;
          return NumberedRow{.row = {.prompt = "x"}};
        },
        nullptr);
    const std::optional<GenerationRequest> request = feed.next();
    ASSERT_TRUE(request);
    request->on_token({.id = 'a'});
    request->on_token({.id = 'b'});
    feed.exchange();
    EXPECT_EQ(feed.progress().tokens, 2);
    EXPECT_EQ(feed.progress().rows, 0);
    request->on_token({.id = 'c'});
    request->on_finish({.ids = {'a', 'b', 'c'}});
    feed.exchange();
    EXPECT_EQ(feed.progress().tokens, 3);
    EXPECT_EQ(feed.progress().rows, 1);
  });
}

TEST_F(Feed, RowsTakeTurnsOverRanksAndResultsReachTheFirst) {
  std::string rows;
  for (int i = 0; i < 7; ++i) rows += "{\"prompt\":\"x\"}\n";
  write(rows);
  std::vector<json> lines = run(3, "hi");
  ASSERT_EQ(lines.size(), 7u);
  std::vector<int> ids;
  for (const json& line : lines) ids.push_back(line["id"]);
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids, (std::vector<int>{0, 1, 2, 3, 4, 5, 6}));
}

TEST_F(Feed, GoesOnWithWhatIsLeft) {
  const std::string rows = "{\"prompt\":\"x\"}\n{\"prompt\":\"y\"}\n{\"prompt\":\"z\"}\n";
  write(rows);
  const std::vector<json> whole = run(1, "hi");
  const std::string text = test::read_file(directory_ / "out.jsonl");
  test::write_file(directory_ / "out.jsonl", text.substr(0, text.find('\n') + 5));
  EXPECT_EQ(run(2, "hi", true).size(), 3u);
  write("{\"prompt\":\"other\"}\n");
  EXPECT_THROW(run(1, "hi", true), UsageError);
}

TEST_F(Feed, AChatThatItsTemplateDoesNotKnowIsAnErrorOfItsRow) {
  PromptEncoder prompts(*tokenizer_, []() -> ChatTemplate { throw FormatError("no such turn"); });
  const auto world = make_self_communicator();
  std::vector<NumberedRow> rows(2);
  rows[0].row.prompt = "good";
  rows[1].row.messages = {{"user", "bad"}};
  ResultsFile results(directory_ / "out.jsonl", false);
  RowFeed feed(
      *world, *tokenizer_, prompts, {.most_tokens = 5},
      [&]() -> std::optional<NumberedRow> {
        if (rows.empty()) return std::nullopt;
        NumberedRow row = rows.back();
        row.number = static_cast<std::int64_t>(rows.size());
        rows.pop_back();
        return row;
      },
      &results);
  serve(feed, "x");
  EXPECT_EQ(feed.progress().rows, 2);
  EXPECT_EQ(feed.progress().errors, 1);
  EXPECT_NE(feed.last_error().find("no such turn"), std::string::npos);
}

TEST_F(Feed, ATextIsShownAsItGrows) {
  PromptEncoder prompts(*tokenizer_, {});
  const auto world = make_self_communicator();
  bool given = false;
  std::vector<std::string> pieces;
  RowFeed feed(
      *world, *tokenizer_, prompts,
      {.settings = settings_,
       .most_tokens = 64,
       .show = [&](const std::string& piece) { pieces.push_back(piece); }},
      [&]() -> std::optional<NumberedRow> {
        if (std::exchange(given, true)) return std::nullopt;
        return NumberedRow{.row = {.prompt = "x"}};
      },
      nullptr);
  serve(feed, "aE");
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "E"}));
}

}  // namespace
}  // namespace strata
