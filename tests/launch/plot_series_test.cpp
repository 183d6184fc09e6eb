#include <gtest/gtest.h>

#include <cmath>

#include "launch/plot/scale.h"
#include "launch/plot/series.h"

namespace strata::plot {
namespace {

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();

Series line(std::size_t values) {
  Series series;
  for (std::size_t i = 0; i < values; ++i) {
    series.push_back({static_cast<double>(i), static_cast<double>(i)});
  }
  return series;
}

std::vector<std::string> labels(const Scale& scale, int wanted, bool whole = false) {
  std::vector<std::string> all;
  const std::vector<double> ticks = scale.ticks(wanted, whole);
  for (const double tick : ticks) {
    all.push_back(axis_label(tick, ticks.size() > 1 ? ticks[1] - ticks[0] : tick));
  }
  return all;
}

using Labels = std::vector<std::string>;
constexpr auto kLinear = Scale::Kind::kLinear;
constexpr auto kLogarithmic = Scale::Kind::kLogarithmic;

TEST(PlotSeries, DownsamplingKeepsEndsAndPeaks) {
  Series series = line(100'000);
  for (Point& point : series) point.y = 0;
  series[77'777].y = 5;
  series[33'333].y = -5;
  const Series out = downsample(series, 2000);
  EXPECT_LE(out.size(), 2000u);
  EXPECT_GE(out.size(), 900u);
  EXPECT_EQ(out.front().x, 0);
  EXPECT_EQ(out.back().x, 99'999);
  Range range;
  range.include(out);
  EXPECT_EQ(range.low, -5);
  EXPECT_EQ(range.high, 5);
  for (std::size_t i = 1; i < out.size(); ++i) EXPECT_LT(out[i - 1].x, out[i].x);
  EXPECT_EQ(downsample(line(2000), 2000).size(), 2000u);
}

TEST(PlotSeries, DownsamplingKeepsLongGapsAsGaps) {
  Series series = line(10'000);
  for (std::size_t i = 4000; i < 6000; ++i) series[i].y = kGap;
  bool gap = false;
  for (const Point& point : downsample(series, 100)) {
    if (point.x > 4200 && point.x < 5800) {
      EXPECT_TRUE(std::isnan(point.y)) << point.x;
      gap = true;
    }
  }
  EXPECT_TRUE(gap);
}

TEST(PlotSeries, SmoothingNeitherLagsNorBendsAtTheEnds) {
  for (const std::size_t values : {20u, 51u, 1000u, 30'001u}) {
    const Series out = smooth(line(values), 500);
    EXPECT_EQ(out.size(), std::min<std::size_t>(values, 500));
    EXPECT_EQ(out.front().x, 0);
    EXPECT_EQ(out.back().x, static_cast<double>(values - 1));
    for (const Point& point : out) EXPECT_NEAR(point.y, point.x, 1e-6);
  }
}

TEST(PlotSeries, SmoothingIsTheMeanAroundAndForgetsASpike) {
  Series series = line(100);
  for (Point& point : series) point.y = 1;
  series[10].y = 1e30;  // whose rounding must not stay in later means
  series[50].y = 6;
  series[80].y = kGap;
  const Series out = smooth(series, 100);
  EXPECT_DOUBLE_EQ(out[50].y, 2);  // (1 + 1 + 6 + 1 + 1) / 5
  EXPECT_DOUBLE_EQ(out[53].y, 1);
  EXPECT_DOUBLE_EQ(out[80].y, 1);
  EXPECT_EQ(smoothing_reach(19), 0u);
}

TEST(PlotSeries, WhatCannotBeDrawnIsAGap) {
  EXPECT_TRUE(std::isnan(drawable(kGap)));
  EXPECT_TRUE(std::isnan(drawable(-std::numeric_limits<double>::infinity())));
  EXPECT_TRUE(std::isnan(drawable(1e300)));
  EXPECT_EQ(drawable(-1e99), -1e99);
  EXPECT_EQ(drawable(5e-324), 0);
  Range range;
  range.include(kGap);
  EXPECT_TRUE(range.empty());
  EXPECT_TRUE(smooth({}, 10).empty());
  EXPECT_TRUE(downsample({}, 10).empty());
}

TEST(PlotScale, MapsValuesToPixels) {
  const Scale linear(kLinear, {2, 4}, 100, 0);
  EXPECT_EQ(linear(2), 100);
  EXPECT_EQ(linear(3), 50);
  EXPECT_EQ(linear(4), 0);
  const Scale logarithmic(kLogarithmic, {1, 100}, 0, 10);
  EXPECT_NEAR(logarithmic(10), 5, 1e-12);
  EXPECT_TRUE(std::isnan(logarithmic(0)));
  EXPECT_TRUE(std::isnan(logarithmic(kGap)));
}

TEST(PlotScale, MarksRoundValues) {
  EXPECT_EQ(labels(Scale(kLinear, {0, 1}, 0, 1), 5),
            (Labels{"0", "0.2", "0.4", "0.6", "0.8", "1"}));
  EXPECT_EQ(labels(Scale(kLinear, {2.03, 2.19}, 0, 1), 4), (Labels{"2.05", "2.1", "2.15"}));
  EXPECT_EQ(labels(Scale(kLinear, {-1.2, 2.4}, 0, 1), 4), (Labels{"-1", "0", "1", "2"}));
  EXPECT_EQ(labels(Scale(kLinear, {1, 20'000}, 0, 1), 4), (Labels{"5000", "10K", "15K", "20K"}));
  EXPECT_EQ(labels(Scale(kLinear, {0, 0.0012}, 0, 1), 3), (Labels{"0", "5e-4", "1e-3"}));
  EXPECT_EQ(labels(Scale(kLinear, {1, 4}, 0, 1), 10, true), (Labels{"1", "2", "3", "4"}));
  EXPECT_EQ(labels(Scale(kLinear, {1e6, 1e6 + 20}, 0, 1), 2, true),
            (Labels{"1M", "1.00001M", "1.00002M"}));
  EXPECT_EQ(Scale(kLogarithmic, {0.5, 40}, 0, 1).ticks(6),
            (std::vector<double>{0.5, 1, 2, 5, 10, 20}));
  EXPECT_EQ(Scale(kLogarithmic, {0.5, 2e6}, 0, 1).ticks(4), (std::vector<double>{10, 1e3, 1e5}));
}

TEST(PlotScale, WidensWhatIsTooNarrow) {
  for (const double value : {0.0, 5.5, -3.0, 1e99, 1e-99}) {
    for (const double next : {value, drawable(std::nextafter(value, 1e100))}) {
      const Scale scale(kLinear, {value, next}, 0, 100);
      EXPECT_GE(scale(value), 0) << value;
      EXPECT_LE(scale(value), 100) << value;
      EXPECT_GE(scale.ticks(5).size(), 1u) << value;
      EXPECT_LE(scale.ticks(5).size(), 12u) << value;
    }
  }
}

}  // namespace
}  // namespace strata::plot
