#include "core/text/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(ByteTokenizer, MapsEveryByteToItself) {
  const auto tokenizer = make_byte_tokenizer();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const Ids ids = tokenizer->encode(all);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<std::size_t>(byte)], byte);
  EXPECT_EQ(tokenizer->decode(ids), all);
  EXPECT_EQ(tokenizer->encode("h\xc3\xa9"), (Ids{104, 195, 169}));
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->vocab_size(), 257);
}

TEST(ByteTokenizer, TakesSpecialTextForData) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(tokenizer->encode("<|endoftext|>").size(), 13u);
  EXPECT_EQ(tokenizer->decode(Ids{65, tokenizer->end_of_document(), 66}), "AB");
  EXPECT_THROW(tokenizer->decode(Ids{257}), Error);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), Error);
}

TEST(TokenizerFile, OfTheByteTokenizerIsRecognised) {
  const auto tokenizer = parse_tokenizer(byte_tokenizer_json(), "tokenizer.json");
  EXPECT_EQ(tokenizer->encode("a"), (Ids{97}));
  EXPECT_EQ(tokenizer->end_of_document(), 256);
}

TEST(TokenizerFile, SpellsBytesAsGpt2Does) {
  const auto vocab = nlohmann::json::parse(byte_tokenizer_json())["model"]["vocab"];
  EXPECT_EQ(vocab.size(), 256u);
  EXPECT_EQ(vocab["A"], 65);
  EXPECT_EQ(vocab["\u0100"], 0);
  EXPECT_EQ(vocab["\u010a"], 10);    // newline
  EXPECT_EQ(vocab["\u0120"], 32);    // space
  EXPECT_EQ(vocab["\u0143"], 0xad);  // soft hyphen, the last that does not print
  EXPECT_EQ(vocab["\u00ff"], 255);
}

TEST(TokenizerFile, OfAnotherKindIsRefusedWithWhatIsSupported) {
  const auto refused = [](const std::string& pointer, const nlohmann::json& value,
                          const std::vector<std::string>& parts) {
    auto document = nlohmann::json::parse(byte_tokenizer_json());
    document[nlohmann::json::json_pointer(pointer)] = value;
    std::vector<std::string> all = {"t.json: "};
    all.insert(all.end(), parts.begin(), parts.end());
    test::expect_message<FormatError>([&] { parse_tokenizer(document.dump(), "t.json"); }, all);
  };
  refused("/model/type", "Unigram", {"Unigram", "supported is BPE"});
  refused("/model/dropout", 0.1, {"model.dropout", "0.1"});
  refused("/model/merges", {"A B"}, {"merge 0", "\"A B\"", "must be tokens"});
  refused("/model/merges", {"A"}, {"merge 0", "\"A\""});
  refused("/model/vocab/A", 66, {"two tokens have the id 66"});
  refused("/model/vocab/A", -1, {"the id of token", "\"A\""});
  refused("/model/vocab", nlohmann::json::array(), {"model.vocab"});
  refused("/model/unk_token", "<unk>", {"unk_token", "<unk>"});
  refused("/normalizer", {{"type", "Lowercase"}}, {"normalizer \"Lowercase\"", "NFC"});
  refused("/pre_tokenizer", {{"type", "BertPreTokenizer"}}, {"BertPreTokenizer", "Metaspace"});
  refused("/pre_tokenizer",
          {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}},
          {"regular expression", "(a"});
  refused("/post_processor", {{"type", "Other"}}, {"post_processor \"Other\"", "Template"});
  refused("/decoder", {{"type", "WordPiece"}}, {"decoder \"WordPiece\"", "ByteFallback"});
  refused("/added_tokens", nlohmann::json::array(), {"no token ends a text", "eos_token"});
  test::expect_message<FormatError>([] { parse_tokenizer("{}", "t.json"); }, {"t.json: ", "model"});
  test::expect_message<FormatError>([] { parse_tokenizer("[", "t.json"); }, {"t.json: ", "JSON"});
}

}  // namespace
}  // namespace strata
