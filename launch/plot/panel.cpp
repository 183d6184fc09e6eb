#include "launch/plot/panel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace strata::plot {
namespace {

constexpr double kLabelWidth = 52;  // left of the vertical axis
constexpr double kHeadingHeight = 28;
constexpr double kLabelHeight = 22;  // below the horizontal axis
constexpr double kPadding = 0.05;    // of the values' span, above and below them
constexpr double kLogarithmicFrom = 20;

Box inside(const Box& box) {
  return {box.x + kLabelWidth, box.y + kHeadingHeight, box.width - kLabelWidth,
          box.height - kHeadingHeight - kLabelHeight};
}

/// The distance of neighbouring marks where they are equally far apart, else the mark itself.
double step_of(const std::vector<double>& ticks, double tick, Scale::Kind kind) {
  const bool even = kind == Scale::Kind::kLinear && ticks.size() > 1;
  return even ? ticks[1] - ticks[0] : std::abs(tick);
}

/// The values' range with some room around it.
Range padded(Range values, Scale::Kind kind, bool from_zero) {
  if (kind == Scale::Kind::kLogarithmic) {
    const double factor = std::pow(values.high / values.low, kPadding);
    return {values.low / factor, values.high * factor};
  }
  const bool positive = values.low >= 0;
  if (from_zero) values.include(0.0);
  if (from_zero && values.low == values.high) values.high = 1;
  const double room = kPadding * (values.high - values.low);
  values.high += room;
  values.low -= room;
  if (positive) values.low = from_zero ? 0 : std::max(0.0, values.low);
  return values;
}

Series to_pixels(const Frame& frame, const Series& values) {
  Series pixels;
  for (const Point& value : values) pixels.push_back({frame.x(value.x), frame.y(value.y)});
  return pixels;
}

std::size_t drawn_values(const Series& values) {
  return static_cast<std::size_t>(
      std::ranges::count_if(values, [](const Point& value) { return !std::isnan(value.y); }));
}

void draw_curve(Svg& svg, const Frame& frame, const Curve& curve) {
  const std::string color = fmt::format("r{}", curve.run % kRunColors);
  const Series pixels = to_pixels(frame, downsample(curve.values, kMostPoints));
  if (drawn_values(pixels) == 1) {
    for (const Point& pixel : pixels) {
      if (!std::isnan(pixel.y)) svg.dot(pixel, 3, "dot " + color, curve.name);
    }
    return;
  }
  svg.path(pixels, fmt::format("{} {}", curve.look, color), curve.name);
}

/// One mark per pixel, however many steps share it.
void draw_skipped(Svg& svg, const Frame& frame, const std::vector<double>& steps) {
  std::set<double> drawn;
  for (const double step : steps) drawn.insert(std::round(frame.x(step)));
  for (const double x : drawn) {
    svg.line({x, frame.inner().bottom()}, {x, frame.inner().bottom() - 7}, "skip");
  }
}

}  // namespace

Range Panel::range() const {
  Range values;
  for (const Curve& curve : curves) values.include(curve.values);
  for (const Dot& dot : dots) values.include(dot.value.y);
  return values;
}

Frame::Frame(Svg& svg, const Box& box, Range steps, Range values, Scale::Kind kind,
             const Axis& axis)
    : inner_(inside(box)),
      x_(axis.kind, steps, inner_.x, inner_.right()),
      y_(kind, values, inner_.bottom(), inner_.y) {
  const std::vector<double> rows = y_.ticks(std::max(2, static_cast<int>(inner_.height / 36)));
  for (const double value : rows) {
    svg.line({inner_.x, y(value)}, {inner_.right(), y(value)}, "grid");
    svg.text(inner_.x - 7, y(value) + 4, Anchor::kEnd, "mark",
             axis_label(value, step_of(rows, value, kind)));
  }
  const std::vector<double> columns = x_.ticks(static_cast<int>(inner_.width / 80), true);
  for (const double step : columns) {
    svg.line({x(step), inner_.bottom()}, {x(step), inner_.bottom() + 4}, "axis");
    svg.text(x(step), inner_.bottom() + 17, Anchor::kMiddle, "mark",
             axis_label(step, step_of(columns, step, axis.kind)));
  }
  svg.text(box.x, inner_.bottom() + 17, Anchor::kStart, "mark", axis.name);
  svg.line({inner_.x, inner_.bottom()}, {inner_.right(), inner_.bottom()}, "axis");
}

void draw_panel(Svg& svg, const Box& box, Range steps, const Panel& panel) {
  svg.begin(panel.title);
  const Range values = panel.range();
  const bool logarithmic =
      panel.may_be_logarithmic && values.low > 0 && values.high / values.low > kLogarithmicFrom;
  const char* comma = panel.unit.empty() ? "" : ", ";
  svg.heading(box.x, box.y + 14, panel.title,
              logarithmic ? panel.unit + comma + "logarithmic scale" : panel.unit);
  svg.text(box.right(), box.y + 14, Anchor::kEnd, "unit",
           fmt::format("{}", fmt::join(panel.notes, ", ")));
  if (values.empty() || steps.empty()) {
    const Box inner = inside(box);
    svg.rectangle(inner, "axis");
    svg.text(inner.x + inner.width / 2, inner.y + inner.height / 2, Anchor::kMiddle, "unit",
             "nothing to draw yet");
    svg.end();
    return;
  }
  const auto kind = logarithmic ? Scale::Kind::kLogarithmic : Scale::Kind::kLinear;
  const Frame frame(svg, box, steps, padded(values, kind, panel.from_zero), kind, panel.axis);
  for (const Curve& curve : panel.curves) draw_curve(svg, frame, curve);
  for (const Dot& dot : panel.dots) {
    if (std::isnan(dot.value.y)) continue;
    svg.dot({frame.x(dot.value.x), frame.y(dot.value.y)}, 3.5,
            fmt::format("dot r{}", dot.run % kRunColors), dot.hint);
  }
  draw_skipped(svg, frame, panel.skipped);
  svg.end();
}

}  // namespace strata::plot
