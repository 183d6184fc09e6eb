#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/plot/series.h"

namespace strata::plot {

/// A number as an axis shows it, with the digits that marks `step` apart differ by: "0", "0.25",
/// "5e-5", "12.5K", "3M".
std::string axis_label(double value, double step);

/// Maps values to pixels along an axis.
class Scale {
 public:
  enum class Kind : std::uint8_t { kLinear, kLogarithmic };

  /// From `from` at range.low to `to` at range.high; a range too narrow to tell values apart is
  /// widened. @pre range is not empty, positive for a logarithmic scale, and drawable()
  Scale(Kind kind, Range range, double from, double to);

  /// In pixels; NaN for what has no place, such as 0 on a logarithmic scale.
  double operator()(double value) const;
  /// About `wanted` round values inside the range: 1, 2 or 5 times a power of ten apart, `whole`
  /// ones only if asked; powers of ten, or those times 1, 2 and 5, on a logarithmic scale.
  std::vector<double> ticks(int wanted, bool whole = false) const;

 private:
  std::vector<double> linear_ticks(int wanted, bool whole) const;
  std::vector<double> logarithmic_ticks(int wanted) const;

  Kind kind_;
  Range range_;
  double from_;
  double to_;
};

}  // namespace strata::plot
