#include "core/nearest_name.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(EditDistance, CountsTheSmallestNumberOfChanges) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", "abc"), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("data", "dta"), 1);
  EXPECT_EQ(edit_distance("lazy", "alzy"), 1) << "neighbours swapped";
  EXPECT_EQ(edit_distance("abc", "xyz"), 3);
}

TEST(NearestName, FindsTheOneThatWasMeant) {
  const std::vector<std::string> names = {"--max_steps", "--max_grad_norm", "--model", "--data"};
  EXPECT_EQ(nearest_name("--max_step", names), "--max_steps");
  EXPECT_EQ(nearest_name("--modle", names), "--model");
  EXPECT_EQ(nearest_name("--date", names), "--data");
}

TEST(NearestName, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("--frobnicate", {"--data", "--model"}), "");
  EXPECT_EQ(nearest_name("x", {}), "");
}

}  // namespace
}  // namespace strata
