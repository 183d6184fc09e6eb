#include "checkpoint/safetensors_header.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

/// The header of a file whose data is `data_bytes` long.
std::vector<SafetensorsTensor> parse(const std::string& header, std::uint64_t data_bytes) {
  return parse_safetensors_header(header, 8 + header.size() + data_bytes, "a.safetensors");
}

void expect_refused(const std::string& header, std::uint64_t data_bytes,
                    const std::vector<std::string>& parts) {
  std::vector<std::string> all{"a.safetensors: "};
  all.insert(all.end(), parts.begin(), parts.end());
  test::expect_message<FormatError>([&] { parse(header, data_bytes); }, all);
}

std::string length(std::uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i)
    bytes[static_cast<std::size_t>(i)] = static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

TEST(SafetensorsHeader, ListsTensorsByNameWithTheirPlaceInTheFile) {
  const std::string header = std::string("{") + tensor("b", "F32", "[2,3]", "[0,24]") +
                             std::string(",") + tensor("a", "BF16", "[5]", "[24,34]") +
                             ",\"__metadata__\":{\"format\":\"pt\"}}";
  const auto tensors = parse(header, 34);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].type->dtype, Dtype::kBf16);
  EXPECT_EQ(tensors[0].begin, 8 + header.size() + 24);
  EXPECT_EQ(tensors[0].bytes, 10u);
  EXPECT_EQ(tensors[1].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensors[1].numel(), 6);
}

TEST(SafetensorsHeader, AcceptsWhatTheReferenceAccepts) {
  EXPECT_TRUE(parse("{}", 0).empty());
  EXPECT_EQ(parse(std::string(" \t\r\n{") + tensor("s", "F64", "[]", "[0,8]") + "} \n", 8).size(),
            1u);
  EXPECT_EQ(parse(std::string("{") + tensor("z", "F32", "[0,7]", "[0,0]") + std::string(",") +
                      tensor("a", "U8", "[3]", "[0,3]") + std::string(",") +
                      tensor("y", "F32", "[2,0]", "[3,3]") + "}",
                  3)
                .size(),
            3u);
  EXPECT_EQ(parse(std::string("{") + tensor("q", "F4", "[4]", "[0,2]") + "}", 2).size(), 1u);
  EXPECT_EQ(parse(std::string("{") + tensor("r", "F6_E2M3", "[4,1,1,1,1,1,1,1]", "[0,3]") + "}", 3)
                .size(),
            1u);
}

TEST(SafetensorsHeader, ChecksTheLengthBeforeReading) {
  const auto refused = [](const std::string& first, std::uint64_t file_bytes, const char* part) {
    test::expect_message<FormatError>([&] { safetensors_header_bytes(first, file_bytes, "a"); },
                                      {"a: ", part});
  };
  EXPECT_EQ(safetensors_header_bytes(length(2), 10, "a"), 2u);
  EXPECT_EQ(safetensors_header_bytes(length(0), 8, "a"), 0u);
  refused("", 0, "too few");
  refused("1234567", 7, "too few");
  refused(length(3), 10, "3 bytes in a file of 10");
  refused(length(100'000'001), 1'000'000'000, "100000001");
  refused(length(~std::uint64_t{0}), ~std::uint64_t{0}, "18446744073709551615");
  refused(length(~std::uint64_t{0} - 7), 4096, "format allows");
}

TEST(SafetensorsHeader, RefusesWhatIsNotOneJsonObject) {
  expect_refused("", 0, {"not a JSON object"});
  expect_refused("   ", 0, {"not a JSON object"});
  expect_refused("[]", 0, {"not a JSON object"});
  expect_refused("\xef\xbb\xbf{}", 0, {"not a JSON object"});
  expect_refused("{", 0, {"not valid JSON"});
  expect_refused("{} {}", 0, {"not valid JSON"});
  expect_refused("{\"\xff\":1}", 0, {"not valid JSON"});
  expect_refused("{\"a\":}", 0, {"not valid JSON"});
  expect_refused(std::string("{}\0", 3), 0, {"not valid JSON"});
  expect_refused("{'a':1}", 0, {"not valid JSON"});
}

TEST(SafetensorsHeader, RefusesNestingWithoutFollowingIt) {
  expect_refused(std::string(50'000'000, '['), 0, {"not a JSON object"});
  expect_refused(std::string("{\"a\":") + std::string(1'000'000, '['), 0, {"\"a\"", "array"});
  expect_refused(std::string("{\"a\":{\"shape\":") + std::string(1'000'000, '['), 0,
                 {"\"a\"", "array"});
  expect_refused("{\"a\":{\"dtype\":{\"a\":1}}}", 0, {"\"a\"", "an object"});
  expect_refused("{\"__metadata__\":{\"a\":{}}}", 0, {"__metadata__", "an object"});
}

TEST(SafetensorsHeader, RefusesKeysThatComeTwice) {
  expect_refused(std::string("{") + tensor("a", "U8", "[1]", "[0,1]") + std::string(",") +
                     tensor("a", "U8", "[1]", "[1,2]") + "}",
                 2, {"\"a\"", "twice"});
  expect_refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                 1, {"\"a\"", "\"dtype\"", "twice"});
  expect_refused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, {"\"k\"", "twice"});
  expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, {"__metadata__", "twice"});
}

TEST(SafetensorsHeader, RefusesOtherTypesThanTheFormatHas) {
  expect_refused("{\"a\":1}", 0, {"\"a\"", "a number"});
  expect_refused("{\"a\":null}", 0, {"\"a\"", "null"});
  expect_refused("{\"a\":{\"dtype\":1}}", 0, {"\"a\"", "a number"});
  expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":\"4\"}}", 0, {"\"a\"", "a string"});
  expect_refused("{\"__metadata__\":{\"a\":1}}", 0, {"__metadata__", "a number"});
  expect_refused("{\"a\":{\"dtype\":\"F32\"}}", 0, {"\"a\"", "must all be there"});
  expect_refused("{\"a\":{\"extra\":1}}", 0, {"\"a\"", "\"extra\""});
  expect_refused(std::string("{") + tensor("a", "F33", "[1]", "[0,4]") + "}", 4, {"\"a\"", "F33"});
  for (const char* dim : {"-1", "1.0", "1e0", "18446744073709551616", "true", "\"1\"", "null"}) {
    expect_refused(
        std::string("{") + tensor("a", "U8", std::string("[") + dim + "]", "[0,1]") + "}", 1,
        {"\"a\""});
    expect_refused(
        std::string("{") + tensor("a", "U8", "[1]", std::string("[0,") + dim + "]") + "}", 1,
        {"\"a\""});
  }
}

TEST(SafetensorsHeader, RefusesSizesThatDoNotFit) {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
    return std::string("{") + tensor("t", dtype, shape, offsets) + "}";
  };
  expect_refused(one("F32", "[2]", "[0,4]"), 4, {"\"t\"", "8 bytes", "4"});
  expect_refused(one("F32", "[1]", "[4,0]"), 4, {"\"t\"", "end before"});
  expect_refused(one("F32", "[1]", "[0,4,4]"), 4, {"\"t\"", "more than two"});
  expect_refused(one("F32", "[1]", "[4]"), 4, {"\"t\"", "not two"});
  expect_refused(one("F4", "[3]", "[0,1]"), 1, {"\"t\"", "whole byte"});
  expect_refused(one("F32", "[4294967296,4294967296]", "[0,4]"), 4, {"\"t\"", "overflows"});
  expect_refused(one("F64", "[2305843009213693952]", "[0,0]"), 0, {"\"t\"", "overflows"});
  expect_refused(one("U8", "[9223372036854775808]", "[0,1]"), 1, {"\"t\"", "2^63"});
  expect_refused(one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, {"\"t\"", "8 dimensions"});
  expect_refused(std::string("{") + tensor(std::string(513, 'n'), "U8", "[1]", "[0,1]") + "}", 1,
                 {"512"});
}

TEST(SafetensorsHeader, RefusesHolesOverlapsAndLeftOvers) {
  const std::string a = tensor("a", "U8", "[4]", "[0,4]");
  expect_refused(std::string("{") + tensor("a", "U8", "[4]", "[1,5]") + "}", 5,
                 {"\"a\"", "begins at data byte 1"});
  expect_refused(std::string("{") + a + std::string(",") + tensor("b", "U8", "[4]", "[5,9]") + "}",
                 9, {"\"b\"", "5", "4"});
  expect_refused(std::string("{") + a + std::string(",") + tensor("b", "U8", "[4]", "[3,7]") + "}",
                 7, {"\"b\"", "3", "4"});
  expect_refused(std::string("{") + a + std::string(",") + tensor("b", "U8", "[4]", "[0,4]") + "}",
                 4, {"\"b\""});
  expect_refused(std::string("{") + a + "}", 5, {"4 bytes of data", "5"});
  expect_refused(std::string("{") + a + "}", 3, {"4 bytes of data", "3"});
  expect_refused("{}", 1, {"0 bytes of data", "1"});
}

TEST(SafetensorsHeader, ShowsNamesWithoutTheirControlCharacters) {
  EXPECT_EQ(in_quotes("a\x1b[31m\n"), "\"a?[31m?\"");
  EXPECT_EQ(in_quotes(std::string(200, 'x')), std::string("\"") + std::string(100, 'x') + "...\"");
}

TEST(SafetensorsIndex, ListsTensorsAndTheirFiles) {
  const auto entries = parse_safetensors_index(
      R"({"metadata":{"total_size":8},"weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors"}})",
      "i.json");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0], (std::pair<std::string, std::string>("a", "m-1.safetensors")));
}

TEST(SafetensorsIndex, LetsNoPathLeadOutOfTheDirectory) {
  for (const char* file :
       {"../m.safetensors", "/etc/m.safetensors", "a/m.safetensors", "m.bin", "", ".safetensors",
        "a\\\\m.safetensors", "m.safetensors\\u0000", "m .safetensors"}) {
    test::expect_message<FormatError>(
        [&] {
          parse_safetensors_index(std::string(R"({"weight_map":{"w":")") + file + "\"}}", "i.json");
        },
        {"i.json: ", "\"w\""});
  }
}

TEST(SafetensorsIndex, RefusesOtherShapesOfJson) {
  for (const char* json : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})",
                           R"({"weight_map":{"a":"m.safetensors","a":"m.safetensors"}})",
                           R"({"weight_map":{"a":{"b":{"c":{"d":{}}}}}})"}) {
    test::expect_message<FormatError>([&] { parse_safetensors_index(json, "i.json"); },
                                      {"i.json: "});
  }
}

}  // namespace
}  // namespace strata
