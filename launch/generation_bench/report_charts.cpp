#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "launch/generation_bench/report.h"
#include "launch/plot/panel.h"

namespace strata {
namespace {

using plot::Anchor;
using plot::Box;
using plot::Panel;
using plot::Range;
using plot::Scale;
using plot::Svg;

constexpr double kWidth = 1160;
constexpr double kMargin = 24;
constexpr double kGap = 28;
constexpr double kRow = 270;

using Value = std::function<std::optional<double>(const GenerationCell&)>;

/// What has a colour of its own: a tier with formats.
std::string series_name(const GenerationReport& report, const GenerationCell& cell) {
  return fmt::format("{}, weights {}, keys and values {}", report.tier(cell.what.tier).label(),
                     cell.what.weights, cell.what.kv);
}

/// Each name once, in the order of the cells.
template <typename Name>
std::vector<std::string> names_of(const GenerationReport& report, Name&& name) {
  std::vector<std::string> names;
  for (const GenerationCell& cell : report.cells) {
    const std::string one = name(cell);
    if (std::find(names.begin(), names.end(), one) == names.end()) names.push_back(one);
  }
  return names;
}

std::vector<std::string> all_series(const GenerationReport& report) {
  return names_of(report, [&](const GenerationCell& cell) { return series_name(report, cell); });
}

std::vector<std::string> all_models(const GenerationReport& report) {
  return names_of(report, [](const GenerationCell& cell) { return cell.what.model; });
}

double drawn(const std::optional<double>& value) {
  return value ? plot::drawable(*value) : std::numeric_limits<double>::quiet_NaN();
}

/// One curve for each series over the cells that `place` gives an x.
Panel panel_of(const GenerationReport& report, const std::string& title, const std::string& unit,
               const std::string& axis, const Value& place, const Value& value) {
  Panel panel{.title = title, .unit = unit, .may_be_logarithmic = true};
  panel.axis = {axis, Scale::Kind::kLogarithmic};
  const std::vector<std::string> series = all_series(report);
  for (std::size_t i = 0; i < series.size(); ++i) {
    std::map<double, double> points;
    for (const GenerationCell& cell : report.cells) {
      if (series_name(report, cell) != series[i]) continue;
      const std::optional<double> x = place(cell);
      if (x && *x > 0) points[*x] = drawn(value(cell));
    }
    plot::Curve curve{series[i], static_cast<int>(i), "line", {}};
    for (const auto& [x, y] : points) {
      curve.values.push_back({x, y});
      panel.dots.push_back({curve.run, {x, y}, fmt::format("{}: {:.4g} at {:g}", series[i], y, x)});
    }
    panel.curves.push_back(std::move(curve));
  }
  return panel;
}

Value batch_of(const std::string& model) {
  return [model](const GenerationCell& cell) -> std::optional<double> {
    if (cell.what.model != model) return {};
    return static_cast<double>(cell.what.shape.batch);
  };
}

/// The time of a token over the sizes of models, at the smallest batch.
Panel latency_panel(const GenerationReport& report) {
  std::int64_t batch = std::numeric_limits<std::int64_t>::max();
  for (const GenerationCell& cell : report.cells) batch = std::min(batch, cell.what.shape.batch);
  return panel_of(
      report, "Latency", fmt::format("seconds per token, batch {}", batch), "size",
      [batch](const GenerationCell& cell) -> std::optional<double> {
        if (cell.what.shape.batch != batch) return {};
        return cell.parameters;
      },
      [](const GenerationCell& cell) -> std::optional<double> {
        if (!cell.measured || cell.measured->decode_seconds <= 0) return {};
        return cell.measured->decode_seconds;
      });
}

std::vector<Panel> panels_of(const GenerationReport& report) {
  std::vector<Panel> panels;
  const std::vector<std::string> models = all_models(report);
  for (const std::string& model : models) {
    panels.push_back(panel_of(report, "Throughput of " + model, "tokens per second", "batch",
                              batch_of(model),
                              [](const GenerationCell& cell) { return cell.tokens_per_second(); }));
  }
  panels.push_back(latency_panel(report));
  for (const std::string& model : models) {
    panels.push_back(panel_of(report, "Energy of " + model, "joules per token", "batch",
                              batch_of(model),
                              [](const GenerationCell& cell) { return cell.joules_per_token(); }));
  }
  std::erase_if(panels, [](const Panel& panel) { return panel.range().empty(); });
  return panels;
}

/// Heading and legend; returns the y below them.
double draw_head(Svg& svg, const GenerationReport& report) {
  double y = kMargin + 14;
  svg.text(kMargin, y, Anchor::kStart, "page", "Generation");
  svg.text(kWidth - kMargin, y, Anchor::kEnd, "unit", report.machine);
  svg.begin("legend");
  const std::vector<std::string> series = all_series(report);
  for (std::size_t i = 0; i < series.size(); ++i) {
    y += 20;
    svg.rectangle({kMargin, y - 9, 18, 9}, fmt::format("s{}", i % plot::kRunColors));
    svg.text(kMargin + 26, y, Anchor::kStart, "name", series[i]);
  }
  svg.end();
  return y + 24;
}

Range places_of(const Panel& panel) {
  Range places;
  for (const plot::Curve& curve : panel.curves) {
    for (const plot::Point& point : curve.values) places.include(point.x);
  }
  return places;
}

}  // namespace

std::string draw_generation(const GenerationReport& report) {
  Svg content;
  double y = draw_head(content, report);
  const std::vector<Panel> panels = panels_of(report);
  const double half = (kWidth - 2 * kMargin - kGap) / 2;
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const bool left = i % 2 == 0;
    const double x = left ? kMargin : kMargin + half + kGap;
    plot::draw_panel(content, {x, y, half, kRow}, places_of(panels[i]), panels[i]);
    if (!left || i + 1 == panels.size()) y += kRow + kGap;
  }
  const double height = y + kMargin - (panels.empty() ? 0 : kGap);
  Svg page;
  page.rectangle({0, 0, kWidth, height}, "back");
  page.append(content);
  return page.document(kWidth, height, "strata bench generate");
}

}  // namespace strata
