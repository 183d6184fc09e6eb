#include "core/units.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace strata {
namespace {

TEST(Units, ReadsSizesAsPeopleWriteThem) {
  EXPECT_EQ(parse_bytes("--dram", "1.5GiB"), 1610612736u);
  EXPECT_EQ(parse_bytes("--dram", "512MB"), 512000000u);
  EXPECT_EQ(parse_bytes("--dram", "64k"), 65536u);
  EXPECT_EQ(parse_bytes("--dram", "64 KiB"), 65536u);
  EXPECT_EQ(parse_bytes("--dram", "2g"), 2147483648u);
  EXPECT_EQ(parse_bytes("--dram", "4096"), 4096u);
  EXPECT_EQ(parse_bytes("--dram", "17B"), 17u);
  EXPECT_EQ(parse_bytes("--dram", "30TB"), 30000000000000u);
  EXPECT_EQ(parse_bytes("--dram", "0"), 0u);
}

TEST(Units, RefusesWhatIsNotASizeAndNamesFlagAndValue) {
  for (const char* text : {"", "GiB", "-1GiB", "1.5XB", "1e3", "nan", "inf", "1 2", "1GiBs", "64kk",
                           "99999PB", "1,5GiB"}) {
    EXPECT_THROW(parse_bytes("--dram", text), UsageError) << text;
  }
  try {
    parse_bytes("--dram", "lots");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("--dram"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("lots"), std::string::npos);
  }
}

TEST(Units, PrintsThreeDigitsAndAUnit) {
  EXPECT_EQ(format_bytes(17), "17 B");
  EXPECT_EQ(format_bytes(65536), "64 KiB");
  EXPECT_EQ(format_bytes(1610612736), "1.50 GiB");
  EXPECT_EQ(format_bytes(1000), "1000 B");
  EXPECT_EQ(format_traffic(1.5e9), "1.50 GB");
  EXPECT_EQ(format_traffic(0), "0 B");
  EXPECT_EQ(format_count(26212352), "26.2M");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_seconds(0.0032), "3.2 ms");
  EXPECT_EQ(format_seconds(14), "14.0 s");
  EXPECT_EQ(format_seconds(185), "3 min 5 s");
  EXPECT_EQ(format_seconds(7440), "2 h 4 min");
}

TEST(Units, ReadsWhatItPrints) {
  for (const std::uint64_t bytes : {0ull, 1ull, 1023ull, 1024ull, 3ull << 20, 5ull << 40}) {
    EXPECT_EQ(parse_bytes("--dram", format_bytes(bytes)), bytes);
  }
}

TEST(RoundUp, IsTheNextMultipleAtAnyWidth) {
  static_assert(round_up(0, 64) == 0);
  static_assert(round_up(1, 64) == 64);
  static_assert(round_up(64, 64) == 64);
  static_assert(round_up(std::uint64_t{65}, 64) == 128);
  static_assert(round_up(std::int64_t{7}, std::size_t{3}) == 9);
}

}  // namespace
}  // namespace strata
