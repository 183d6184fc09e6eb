#include "launch/generation/score_rows.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(ScoreRows, AreTextsOrContinuations) {
  const ScoreRow text = parse_score_row(R"({"id": 7, "text": "ab"})", "f:1");
  EXPECT_EQ(text.id, "7");
  EXPECT_FALSE(text.context);
  EXPECT_EQ(text.text, "ab");
  const ScoreRow row = parse_score_row(R"({"id":"x","context":"a","continuation":"b"})", "f:1");
  EXPECT_EQ(row.id, "\"x\"");
  EXPECT_EQ(row.context, "a");
  EXPECT_EQ(row.text, "b");
  for (const char* line : {R"({"text":"a","context":"b","continuation":"c"})", R"({"context":"b"})",
                           R"({"continuation":"b"})", R"({})", R"({"text":1})",
                           R"({"text":"a","id":[]})", R"({"txt":"a"})", "[1]", "{"}) {
    EXPECT_THROW(parse_score_row(line, "f:3"), FormatError) << line;
  }
  test::expect_message<FormatError>([] { parse_score_row(R"({"txt":"a"})", "f:3"); },
                                    {"f:3", "\"txt\" is not known"});
}

TEST(ScorePieces, CutWhatIsTooLongBehindTheTokenBefore) {
  const auto tokenizer = make_byte_tokenizer();
  const auto pieces = score_pieces({.text = "abcdefgh"}, *tokenizer, 4);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].ids, (Ids{'a', 'b', 'c', 'd'}));
  EXPECT_EQ(pieces[1].ids, (Ids{'d', 'e', 'f', 'g'}));
  EXPECT_EQ(pieces[2].ids, (Ids{'g', 'h'}));
  for (const ScorePiece& piece : pieces) EXPECT_EQ(piece.score_from, 1);
  EXPECT_THROW(score_pieces({.text = "a"}, *tokenizer, 4), FormatError);
  EXPECT_THROW(score_pieces({.text = ""}, *tokenizer, 4), FormatError);
}

TEST(ScorePieces, ScoreAContinuationOnly) {
  const auto tokenizer = make_byte_tokenizer();
  const auto one = [&](const std::string& context, const std::string& text, std::int64_t most) {
    return score_pieces({.context = context, .text = text}, *tokenizer, most).at(0);
  };
  const ScorePiece plain = one("abc", "de", 9);
  EXPECT_EQ(plain.ids, (Ids{'a', 'b', 'c', 'd', 'e'}));
  EXPECT_EQ(plain.score_from, 3);
  EXPECT_EQ(one("ab  ", "c", 9).score_from, 2) << "spaces belong to the continuation";
  const ScorePiece cut = one("abcdef", "gh", 4);
  EXPECT_EQ(cut.ids, (Ids{'e', 'f', 'g', 'h'}));
  EXPECT_EQ(cut.score_from, 2);
  EXPECT_EQ(one("", "ab", 4).score_from, 1) << "nothing tells of the first token";
  EXPECT_THROW(one("a", "", 4), FormatError);
  EXPECT_THROW(one("a", "bcde", 4), FormatError);
}

TEST(ScoreSum, AddsUpPieces) {
  ScoreSum sum;
  GenerationResult result;
  result.scores = {{-1.0f, true}, {-0.5f, true}};
  sum.add(result);
  EXPECT_EQ(nlohmann::json::parse(sum.json("3")),
            nlohmann::json::parse(R"({"id":3,"log_likelihood":-1.5,"tokens":2,"is_greedy":true,
                                      "perplexity":2.117000016612675})"));
  result.scores = {{-2.0f, false}};
  sum.add(result);
  EXPECT_FALSE(sum.greedy);
  EXPECT_EQ(sum.tokens, 3);
  result.error = "too long";
  sum.add(result);
  EXPECT_EQ(sum.json("\"a\""), R"({"id":"a","error":"too long"})");
}

}  // namespace
}  // namespace strata
