#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "launch/plot/scale.h"
#include "launch/plot/series.h"
#include "launch/plot/svg.h"

namespace strata::plot {

inline constexpr std::size_t kMostPoints = 2000;  ///< of one drawn line

/// A line of one run in a panel. `look` is "line", "faint" or "dashed".
struct Curve {
  std::string name;
  int run = 0;
  const char* look = "line";
  Series values;
};

/// A marked value with its hint for the mouse.
struct Dot {
  int run = 0;
  Point value;
  std::string hint;
};

/// What a diagram's horizontal axis shows.
struct Axis {
  std::string name = "step";
  Scale::Kind kind = Scale::Kind::kLinear;
};

/// A diagram over steps, or over what its axis says.
struct Panel {
  std::string title;
  std::string unit;
  std::set<std::string> notes = {};  ///< what the looks of its lines mean
  std::vector<Curve> curves = {};
  std::vector<Dot> dots = {};
  std::vector<double> skipped = {};  ///< steps that get a mark at the lower edge
  bool from_zero = false;            ///< the vertical axis begins at 0
  bool may_be_logarithmic = false;   ///< where values span more than a factor of 20
  Axis axis = {};

  Range range() const;  ///< of all values
};

/// The axes of a diagram inside `box`, under room for its heading.
class Frame {
 public:
  /// Draws heading, grid and marks. `steps` and `values` are not empty.
  Frame(Svg& svg, const Box& box, Range steps, Range values, Scale::Kind kind,
        const Axis& axis = {});

  double x(double step) const { return x_(step); }
  double y(double value) const { return y_(value); }
  const Box& inner() const noexcept { return inner_; }

 private:
  Box inner_;
  Scale x_;
  Scale y_;
};

void draw_panel(Svg& svg, const Box& box, Range steps, const Panel& panel);

}  // namespace strata::plot
