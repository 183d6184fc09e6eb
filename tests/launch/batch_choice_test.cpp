#include "launch/generation/batch_choice.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

/// Of passes that hide `rows` rows whatever is in flight.
auto always(std::int64_t rows) {
  return [rows](std::int64_t) { return rows; };
}

TEST(BatchChoice, ForThroughputIsAllThatIsAllowed) {
  EXPECT_EQ(choose_batch({}, 10, always(1)), 10);
  EXPECT_EQ(choose_batch({.most = 4}, 10, always(1)), 4);
  EXPECT_EQ(choose_batch({.most = 900}, 5000, always(1)), 900);
  EXPECT_EQ(choose_batch({}, 0, always(1)), 1);
}

TEST(BatchChoice, PassesTheUsualNumberOnlyWhereThatCostsNoTime) {
  EXPECT_EQ(choose_batch({}, 5000, always(10)), kUsualBatch);
  EXPECT_EQ(choose_batch({}, 5000, always(700)), 700);
  EXPECT_EQ(choose_batch({}, 500, always(700)), 500);
  EXPECT_EQ(choose_batch({}, 1 << 16, always(1 << 16)), 4096);
  EXPECT_EQ(choose_batch({.most = 300}, 5000, always(700)), 300);
}

TEST(BatchChoice, ForLatencyIsWhatAPassHides) {
  const BatchOptions latency{.objective = Objective::kLatency};
  EXPECT_EQ(choose_batch(latency, 100, always(30)), 30);
  EXPECT_EQ(choose_batch(latency, 20, always(30)), 20);
  EXPECT_EQ(choose_batch(latency, 100, always(0)), 1);
  EXPECT_EQ(choose_batch({.most = 8, .objective = Objective::kLatency}, 100, always(30)), 8);
  // With fewer texts more weights stay, and a pass hides fewer.
  EXPECT_EQ(choose_batch(latency, 100, [](std::int64_t texts) { return 10 + texts / 2; }), 20);
}

}  // namespace
}  // namespace strata
