#include "launch/plot/series.h"

#include <algorithm>
#include <cmath>

namespace strata::plot {
namespace {

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();
constexpr double kLargest = 1e100;
constexpr double kSmallest = 1e-100;

/// Lowest and highest of series[begin, end) in their order; one gap where there is nothing else.
void append_extremes(const Series& series, std::size_t begin, std::size_t end, Series& out) {
  const Point* low = nullptr;
  const Point* high = nullptr;
  for (std::size_t i = begin; i < end; ++i) {
    const Point& point = series[i];
    if (std::isnan(point.y)) continue;
    if (low == nullptr || point.y < low->y) low = &point;
    if (high == nullptr || point.y > high->y) high = &point;
  }
  if (low == nullptr) {
    out.push_back({series[begin].x, kGap});
    return;
  }
  out.push_back(*std::min(low, high));
  if (low != high) out.push_back(*std::max(low, high));
}

/// The value at `center` of the straight line through series[begin, end) with the least squares.
double fitted(const Series& series, std::size_t begin, std::size_t end, std::size_t center) {
  double count = 0, x_sum = 0, y_sum = 0, xx_sum = 0, xy_sum = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const double y = series[i].y;
    if (std::isnan(y)) continue;
    const double x = static_cast<double>(i) - static_cast<double>(center);
    ++count;
    x_sum += x;
    y_sum += y;
    xx_sum += x * x;
    xy_sum += x * y;
  }
  const double determinant = count * xx_sum - x_sum * x_sum;
  if (determinant > 0) return (xx_sum * y_sum - x_sum * xy_sum) / determinant;
  return count > 0 ? y_sum / count : kGap;
}

}  // namespace

void Range::include(double value) noexcept {
  if (std::isnan(value)) return;
  low = std::min(low, value);
  high = std::max(high, value);
}

void Range::include(const Series& series) noexcept {
  for (const Point& point : series) include(point.y);
}

double drawable(double value) noexcept {
  if (!std::isfinite(value) || std::abs(value) > kLargest) return kGap;
  return std::abs(value) < kSmallest ? 0 : value;
}

Series downsample(const Series& series, std::size_t most) {
  if (series.size() <= most) return series;
  const std::size_t stretches = (most - 2) / 2;
  const std::size_t inner = series.size() - 2;
  Series out = {series.front()};
  for (std::size_t i = 0; i < stretches; ++i) {
    append_extremes(series, 1 + inner * i / stretches, 1 + inner * (i + 1) / stretches, out);
  }
  out.push_back(series.back());
  return out;
}

std::size_t smoothing_reach(std::size_t values) noexcept {
  return values < 20 ? 0 : std::max<std::size_t>(2, values / 50);
}

Series smooth(const Series& series, std::size_t most) {
  const std::size_t reach = smoothing_reach(series.size());
  const std::size_t count = std::min(series.size(), most);
  Series out;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t center = count < 2 ? 0 : (series.size() - 1) * i / (count - 1);
    const std::size_t begin = center - std::min(center, reach);
    const std::size_t end = std::min(series.size(), center + reach + 1);
    out.push_back({series[center].x, fitted(series, begin, end, center)});
  }
  return out;
}

}  // namespace strata::plot
