#include "launch/generation/stop_text.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace strata {
namespace {

/// What is shown after each byte of `text`, and at the end.
std::vector<std::string> shown(std::string_view text, std::vector<std::string> stops) {
  const auto tokenizer = make_byte_tokenizer();
  StopText stop(*tokenizer, std::move(stops));
  std::vector<std::string> pieces;
  for (const char byte : text) pieces.push_back(stop.add(static_cast<unsigned char>(byte)));
  pieces.push_back(stop.finish());
  return pieces;
}

std::string all(std::string_view text, std::vector<std::string> stops) {
  std::string joined;
  for (const std::string& piece : shown(text, std::move(stops))) joined += piece;
  return joined;
}

using Pieces = std::vector<std::string>;

TEST(StopText, HoldsBackWhatMayBecomeAStopString) {
  EXPECT_EQ(shown("aENxEND!", {"END"}), (Pieces{"a", "", "", "ENx", "", "", "", "", ""}));
  EXPECT_EQ(shown("abc", {}), (Pieces{"a", "b", "c", ""}));
}

TEST(StopText, GivesWhatWasHeldBackAtTheEnd) {
  EXPECT_EQ(shown("aEN", {"END"}), (Pieces{"a", "", "", "EN"}));
}

TEST(StopText, TriesEveryBeginningOfAStopString) {
  EXPECT_EQ(all("aaab", {"aab"}), "a");
  EXPECT_EQ(all("ababac", {"abac"}), "ab");
  EXPECT_EQ(all("ababab", {"abac"}), "ababab");
}

TEST(StopText, TheStringThatIsCompleteFirstStops) {
  EXPECT_EQ(all("xx\n\nUser: y", {"User:", "\n\n"}), "xx");
  EXPECT_EQ(all("1 two three", {"two three four", "three"}), "1 two ");
}

TEST(StopText, KnowsThatItHasStopped) {
  const auto tokenizer = make_byte_tokenizer();
  StopText stop(*tokenizer, {"."});
  EXPECT_EQ(stop.add('a'), "a");
  EXPECT_FALSE(stop.stopped());
  EXPECT_EQ(stop.add('.'), "");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.add('b'), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopText, StopStringsMayHaveCharactersOfSeveralTokens) {
  EXPECT_EQ(all("caf\xc3\xa9 au lait", {"\xc3\xa9 au"}), "caf");
  EXPECT_EQ(all("caf\xc3\xa9", {"\xc3\xa8"}), "caf\xc3\xa9");
}

TEST(StopText, AnEmptyStopStringIsTheCallersMistake) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_THROW(StopText(*tokenizer, {""}), Error);
}

}  // namespace
}  // namespace strata
