#include "launch/plot/lanes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launch/plot/panel.h"
#include "launch/plot/summary.h"

namespace strata::plot {
namespace {

constexpr std::size_t kMostColumns = 500;  // an area has two corners for each, both ways

/// Steps of a run that are drawn as one, by their means.
struct Column {
  double begin = 0;  ///< steps, halfway to the neighbours
  double end = 0;
  double step = 0;                               ///< seconds
  std::array<double, kLanes.size() + 1> tops{};  ///< of every lane in the pile, then of the rest
};

double seconds_or_zero(double value) {
  const double drawn = drawable(value);
  return std::isnan(drawn) ? 0 : std::max(0.0, drawn);
}

Column mean_column(const std::vector<StepMetrics>& steps, std::size_t begin, std::size_t end) {
  Column column;
  const auto count = static_cast<double>(end - begin);
  std::array<double, kLanes.size()> seconds{};
  for (std::size_t i = begin; i < end; ++i) {
    column.step += seconds_or_zero(steps[i].seconds) / count;
    for (std::size_t lane = 0; lane < kLanes.size(); ++lane) {
      seconds[lane] += seconds_or_zero(steps[i].*kLanes[lane].seconds) / count;
    }
  }
  double top = 0;
  for (std::size_t lane = 0; lane < kLanes.size(); ++lane) column.tops[lane] = top += seconds[lane];
  column.tops.back() = std::max(top, column.step);
  column.begin = static_cast<double>(steps[begin].step) - 0.5;
  column.end = static_cast<double>(steps[end - 1].step) + 0.5;
  return column;
}

std::vector<Column> make_columns(const std::vector<StepMetrics>& steps) {
  const std::size_t count = std::min(kMostColumns, steps.size());
  std::vector<Column> columns;
  for (std::size_t i = 0; i < count; ++i) {
    columns.push_back(mean_column(steps, steps.size() * i / count, steps.size() * (i + 1) / count));
  }
  for (std::size_t i = 1; i < columns.size(); ++i) {  // rows may be several steps apart
    columns[i - 1].end = columns[i].begin = (columns[i - 1].end + columns[i].begin) / 2;
  }
  return columns;
}

/// What the vertical axis counts in: seconds, or milliseconds for short ones.
struct Unit {
  const char* name;
  double per_second;
};

Unit unit_for(double longest) {
  return longest < 1 ? Unit{"milliseconds", 1e3} : Unit{"seconds", 1};
}

/// The legend of the pile, from the right edge to the left.
void draw_legend(Svg& svg, const Box& box) {
  double x = box.right();
  const auto item = [&](const char* title, const std::string& look, bool is_line) {
    x -= text_width(title);
    svg.text(x, box.y + 14, Anchor::kStart, "unit", title);
    if (is_line) {
      svg.line({x - 17, box.y + 10}, {x - 5, box.y + 10}, look);
    } else {
      svg.rectangle({x - 15, box.y + 5, 10, 10}, look);
    }
    x -= 28;
  };
  item("step", "whole", true);
  item("rest", "area rest", false);
  for (std::size_t lane = kLanes.size(); lane-- > 0;) {
    item(kLanes[lane].title, fmt::format("area {}", kLanes[lane].name), false);
  }
}

}  // namespace

bool has_lanes(const std::vector<StepMetrics>& steps) {
  return std::ranges::any_of(
      steps, [](const StepMetrics& step) { return seconds_or_zero(step.seconds) > 0; });
}

void draw_lanes(Svg& svg, const Box& box, const std::string& title,
                const std::vector<StepMetrics>& steps) {
  const std::vector<Column> columns = make_columns(steps);
  if (columns.empty()) return;
  double longest = 0;
  for (const Column& column : columns) longest = std::max(longest, column.tops.back());
  const Unit unit = unit_for(longest);
  svg.begin(title);
  svg.heading(box.x, box.y + 14, title, unit.name);
  draw_legend(svg, box);
  const double high = std::max(longest * unit.per_second * 1.05, 1e-9);
  const Frame frame(svg, box, {columns.front().begin, columns.back().end}, {0, high},
                    Scale::Kind::kLinear);
  const auto stairs = [&](auto&& value_of) {
    Series pixels;
    for (const Column& column : columns) {
      const double y = frame.y(value_of(column) * unit.per_second);
      pixels.push_back({frame.x(column.begin), y});
      pixels.push_back({frame.x(column.end), y});
    }
    return pixels;
  };
  // Each layer reaches down to the axis; lower ones are drawn over higher ones.
  for (std::size_t layer = kLanes.size() + 1; layer-- > 0;) {
    Series pixels = stairs([layer](const Column& column) { return column.tops[layer]; });
    pixels.push_back({pixels.back().x, frame.y(0)});
    pixels.push_back({pixels.front().x, frame.y(0)});
    const char* lane = layer < kLanes.size() ? kLanes[layer].name : "rest";
    svg.area(pixels, fmt::format("area {}", lane), lane);
  }
  svg.path(stairs([](const Column& column) { return column.step; }), "whole", "step");
  svg.end();
}

}  // namespace strata::plot
