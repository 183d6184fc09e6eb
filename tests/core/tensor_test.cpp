#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace strata {
namespace {

TEST(Shape, CountsElementsAndIndexesFromBothEnds) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.numel(), 30);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{0, 7}.numel()), 0);
  EXPECT_EQ(shape.to_string(), "[2, 3, 5]");
  EXPECT_THROW(shape[3], Error);
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
  EXPECT_THROW((Shape{-1}), Error);
}

TEST(TensorView, SlicesRowsAndFlatRanges) {
  std::vector<float> data(12);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const TensorView view(data.data(), Dtype::kF32, {4, 3});
  EXPECT_EQ(view.rows(1, 2).shape(), (Shape{2, 3}));
  EXPECT_EQ(view.rows(1, 2).as<float>()[0], 3.0f);
  EXPECT_EQ(view.flat(5, 2).as<float>()[1], 6.0f);
  EXPECT_EQ(view.reshape({3, 4}).shape(), (Shape{3, 4}));
  EXPECT_THROW(view.rows(3, 2), Error);
  EXPECT_THROW(view.flat(-1, 2), Error);
  EXPECT_THROW(view.reshape({5}), Error);
  EXPECT_THROW(view.as<bf16>(), Error);
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNanAndInfinity) {
  EXPECT_EQ(bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(bf16(1.00390625f).bits, 0x3f80);  // exactly between 1 and its successor: even wins
  EXPECT_EQ(bf16(1.01171875f).bits, 0x3f82);  // the next tie goes up to even
  EXPECT_EQ(bf16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::nanf("1")))));
  EXPECT_EQ(bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
}

}  // namespace
}  // namespace strata
