#include "launch/plot/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/plot/lanes.h"
#include "launch/plot/panel.h"
#include "launch/plot/summary.h"

namespace strata::plot {
namespace {

constexpr double kWidth = 1160;
constexpr double kMargin = 24;
constexpr double kGap = 28;
constexpr double kRow = 250;      // height of a diagram
constexpr double kWideRow = 330;  // of one over the whole width

using Value = double (*)(const StepMetrics&);

Series series_of(const Run& run, Value value) {
  Series series;
  for (const StepMetrics& step : run.history.steps) {
    series.push_back({static_cast<double>(step.step), drawable(value(step))});
  }
  return series;
}

/// A curve of a run, and a smoother one over it where there is enough to smooth.
void add_smoothed(Panel& panel, const std::string& name, int run, const Series& values) {
  const bool smooths = smoothing_reach(values.size()) > 0;
  panel.curves.push_back({name, run, smooths ? "faint" : "line", values});
  if (!smooths) return;
  panel.curves.push_back({name + ", smoothed", run, "line", smooth(values, kMostPoints)});
  panel.notes.insert("faint: every step, bold: smoothed");
}

/// Divides by the largest unit that leaves numbers above 1.
struct ByteUnit {
  const char* name = "bytes";
  double bytes = 1;
};

ByteUnit byte_unit(double largest, bool binary) {
  static constexpr std::array<std::array<const char*, 2>, 5> kNames = {
      {{"bytes", "bytes"}, {"KB", "KiB"}, {"MB", "MiB"}, {"GB", "GiB"}, {"TB", "TiB"}}};
  const double base = binary ? 1024 : 1000;
  ByteUnit unit;
  for (std::size_t i = 1; i < kNames.size() && largest >= 2 * unit.bytes * base; ++i) {
    unit = {kNames[i][binary ? 1 : 0], unit.bytes * base};
  }
  return unit;
}

/// Brings values in bytes to a unit, which is named.
void scale_bytes(Panel& panel, bool binary, const char* what) {
  const ByteUnit unit = byte_unit(panel.range().high, binary);
  for (Curve& curve : panel.curves) {
    for (Point& point : curve.values) point.y /= unit.bytes;
  }
  panel.unit = fmt::format("{}{}", unit.name, what);
}

Panel loss_panel(const std::vector<Run>& runs) {
  Panel panel{.title = "Loss", .unit = "nats per token", .may_be_logarithmic = true};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i);
    add_smoothed(panel, "loss", color,
                 series_of(runs[i], [](const StepMetrics& step) { return step.loss; }));
    Curve evaluations{"evaluation", color, "dashed", {}};
    for (const EvaluationMetrics& row : runs[i].history.evaluations) {
      const Point point{static_cast<double>(row.step), drawable(row.loss)};
      evaluations.values.push_back(point);
      panel.dots.push_back(
          {color, point, fmt::format("{}: {:.4f} at step {}", runs[i].name, row.loss, row.step)});
    }
    if (evaluations.values.size() > 1) panel.curves.push_back(std::move(evaluations));
    for (const StepMetrics& step : runs[i].history.steps) {
      if (step.skipped) panel.skipped.push_back(static_cast<double>(step.step));
    }
  }
  if (!panel.dots.empty()) panel.notes.insert("circles: evaluation");
  if (!panel.skipped.empty()) panel.notes.insert("red marks: skipped steps");
  if (panel.dots.size() > kMostPoints) panel.dots.clear();  // their line tells as much
  return panel;
}

Panel value_panel(const std::vector<Run>& runs, const char* title, const char* unit, Value value) {
  Panel panel{.title = title, .unit = unit, .from_zero = true};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    panel.curves.push_back({title, static_cast<int>(i), "line", series_of(runs[i], value)});
  }
  return panel;
}

Panel noisy_panel(const std::vector<Run>& runs, const char* title, const char* unit, Value value) {
  Panel panel{.title = title, .unit = unit, .from_zero = true};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    add_smoothed(panel, title, static_cast<int>(i), series_of(runs[i], value));
  }
  return panel;
}

Panel swap_panel(const std::vector<Run>& runs) {
  Panel panel = value_panel(runs, "Swap", "", [](const StepMetrics& step) {
    return static_cast<double>(step.swap_bytes_read);
  });
  for (std::size_t i = 0; i < runs.size(); ++i) {
    panel.curves.push_back(
        {"written", static_cast<int>(i), "dashed", series_of(runs[i], [](const StepMetrics& step) {
           return static_cast<double>(step.swap_bytes_written);
         })});
  }
  scale_bytes(panel, false, " per step, all ranks");
  panel.notes.insert("line: read, dashes: written");
  return panel;
}

/// On a logarithmic scale where a linear one would show nothing of the smallest: the beginnings and
/// ends near 0 of schedules are cut off then.
Panel learning_rate_panel(const std::vector<Run>& runs) {
  Panel panel = value_panel(runs, "Learning rate", "",
                            [](const StepMetrics& step) { return step.learning_rate; });
  Range peaks;
  for (const Curve& curve : panel.curves) {
    Range values;
    values.include(curve.values);
    if (values.high > 0) peaks.include(values.high);
  }
  panel.may_be_logarithmic = peaks.high > 20 * peaks.low;
  if (!panel.may_be_logarithmic) return panel;
  for (Curve& curve : panel.curves) {
    for (Point& point : curve.values) {
      if (point.y < peaks.low / 20) point.y = std::numeric_limits<double>::quiet_NaN();
    }
  }
  return panel;
}

/// The small diagrams, those without any value left out.
std::vector<Panel> small_panels(const std::vector<Run>& runs) {
  std::vector<Panel> panels;
  panels.push_back(learning_rate_panel(runs));
  panels.push_back(noisy_panel(runs, "Gradient norm", "before clipping",
                               [](const StepMetrics& step) { return step.grad_norm; }));
  panels.back().may_be_logarithmic = true;
  panels.push_back(noisy_panel(runs, "Speed", "tokens per second",
                               [](const StepMetrics& step) { return step.tokens_per_second; }));
  panels.push_back(value_panel(runs, "Memory", "", [](const StepMetrics& step) {
    return static_cast<double>(step.rss_peak_bytes);
  }));
  scale_bytes(panels.back(), true, ", peak of the largest rank");
  panels.push_back(swap_panel(runs));
  std::erase_if(panels, [](const Panel& panel) {
    const Range values = panel.range();
    return values.empty() || (values.low == 0 && values.high == 0);
  });
  return panels;
}

/// Beginning and end of a name that is longer than `most` bytes.
std::string shortened(const std::string& name, std::size_t most) {
  if (name.size() <= most) return name;
  return name.substr(0, most / 3) + "\xe2\x80\xa6" + name.substr(name.size() - most / 2);
}

/// Title and legend; returns the y below them.
double draw_head(Svg& svg, const std::vector<Run>& runs) {
  double y = kMargin + 14;
  if (runs.size() == 1) {
    svg.text(kMargin, y, Anchor::kStart, "page", shortened(runs[0].name, 48));
    svg.text(kWidth - kMargin, y, Anchor::kEnd, "unit", summary_line(summarize(runs[0].history)));
    return y + 24;
  }
  svg.text(kMargin, y, Anchor::kStart, "page", fmt::format("{} runs", runs.size()));
  svg.begin("legend");
  for (std::size_t i = 0; i < runs.size(); ++i) {
    y += 20;
    svg.rectangle({kMargin, y - 9, 18, 9}, fmt::format("s{}", i % kRunColors));
    svg.text(kMargin + 26, y, Anchor::kStart, "name", shortened(runs[i].name, 48));
    svg.text(kMargin + 360, y, Anchor::kStart, "unit", summary_line(summarize(runs[i].history)));
  }
  svg.end();
  return y + 24;
}

Range steps_of(const std::vector<Run>& runs) {
  Range steps;
  for (const Run& run : runs) {
    for (const StepMetrics& row : run.history.steps) steps.include(static_cast<double>(row.step));
    for (const EvaluationMetrics& row : run.history.evaluations) {
      steps.include(static_cast<double>(row.step));
    }
  }
  if (steps.low == steps.high) steps = {steps.low - 0.5, steps.high + 0.5};
  return steps;
}

}  // namespace

std::string draw_runs(const std::vector<Run>& runs) {
  Svg content;
  double y = draw_head(content, runs);
  const Range steps = steps_of(runs);
  const double whole = kWidth - 2 * kMargin;
  const double half = (whole - kGap) / 2;
  draw_panel(content, {kMargin, y, whole, kWideRow}, steps, loss_panel(runs));
  y += kWideRow + kGap;
  const std::vector<Panel> panels = small_panels(runs);
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const bool alone = i + 1 == panels.size() && i % 2 == 0;
    const double x = i % 2 == 0 ? kMargin : kMargin + half + kGap;
    draw_panel(content, {x, y, alone ? whole : half, kRow}, steps, panels[i]);
    if (alone || i % 2 == 1) y += kRow + kGap;
  }
  for (const Run& run : runs) {
    if (!has_lanes(run.history.steps)) continue;
    const std::string title =
        runs.size() == 1 ? "Time of the lanes" : "Time of the lanes: " + shortened(run.name, 32);
    draw_lanes(content, {kMargin, y, whole, kRow}, title, run.history.steps);
    y += kRow + kGap;
  }
  const double height = y - kGap + kMargin;
  Svg page;
  page.rectangle({0, 0, kWidth, height}, "back");
  page.append(content);
  return page.document(kWidth, height, runs.size() == 1 ? runs[0].name : "runs of strata train");
}

}  // namespace strata::plot
