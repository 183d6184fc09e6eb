// The matches that are found by hand are those of the regular expressions.
#include "core/text/ascii_words.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "core/text/regex.h"

namespace strata {
namespace {

std::vector<std::size_t> ends(const Regex& regex, const std::string& text) {
  std::vector<std::size_t> result;
  regex.for_each_match(text, [&](TextSpan span) {
    result.push_back(span.begin);
    result.push_back(span.end);
  });
  return result;
}

class AsciiWords : public testing::TestWithParam<std::string> {};

TEST_P(AsciiWords, AreThoseOfTheRegularExpression) {
  ASSERT_NE(ascii_match_of(GetParam()), nullptr);
  const std::string same = "(?:" + GetParam() + ")";
  ASSERT_EQ(ascii_match_of(same), nullptr);
  const Regex by_hand(GetParam(), "by hand");
  const Regex by_regex(same, "by regex");
  const std::vector<std::string> pieces = {"a",        "S",        "word",         "'",
                                           "'s",       "'LL",      "'re",          "'v",
                                           "1",        "234",      "5678",         " ",
                                           "  ",       "\t",       "\n",           "\r",
                                           "\n\n",     "\v",       "\f",           ".",
                                           "!?",       "_",        "\x1c",         "\x7f",
                                           "\xc3\xa9", "\xc2\xa0", "\xe3\x80\x80", "\xe4\xb8\xad",
                                           "\xc5\xbf", "\xd9\xa3", "\xcc\x81",     "-"};
  std::minstd_rand random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (unsigned i = 0; i < 1 + random() % 12; ++i) {
      // Mostly what is done by hand.
      const std::size_t count = random() % 4 == 0 ? pieces.size() : pieces.size() - 8;
      text += pieces[random() % count];
    }
    ASSERT_EQ(ends(by_hand, text), ends(by_regex, text)) << testing::PrintToString(text);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Patterns, AsciiWords,
    testing::Values(std::string(kGpt2Pattern),
                    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| )"
                    R"(?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| )"
                    R"(?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
    [](const auto& p) { return "Pattern" + std::to_string(p.index); });

}  // namespace
}  // namespace strata
