#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace strata::plot {

/// A value of a curve; a `y` that is NaN is a gap.
struct Point {
  double x = 0;
  double y = 0;
};
/// In ascending order of x.
using Series = std::vector<Point>;

/// Smallest and largest of what was included.
struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  bool empty() const noexcept { return low > high; }
  /// Gaps change nothing.
  void include(double value) noexcept;
  void include(const Series& series) noexcept;  ///< its y
};

/// `value`, or a gap for what cannot be drawn: not finite, or beyond 1e100. 0 for what is below
/// 1e-100. In between, differences and quotients stay finite.
double drawable(double value) noexcept;

/// At most `most` points that look the same: first and last, and of every stretch between them its
/// lowest and its highest. @pre most >= 4
Series downsample(const Series& series, std::size_t most);

/// Values to each side that smooth() takes in: 2% of them, 0 (nothing to smooth) below 20.
std::size_t smoothing_reach(std::size_t values) noexcept;

/// At most `most` points of a smoother curve: each on the straight line that fits its neighbours on
/// both sides best. That is their mean, but at the ends, where a mean would lag. Gaps do not count.
/// @pre most >= 2
Series smooth(const Series& series, std::size_t most);

}  // namespace strata::plot
