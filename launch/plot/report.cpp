#include "launch/plot/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/units.h"
#include "launch/plot/charts.h"
#include "launch/plot/summary.h"
#include "launch/plot/svg.h"

namespace strata::plot {
namespace {

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;max-width:1160px;
margin:0 auto;padding:24px;color:#1c2126;background:#fff}
h1{font-size:24px;margin:0}h2{font-size:18px;margin:36px 0 8px}p{margin:6px 0}
.lead,td.what,th{color:#66707a}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.card{border:1px solid #dfe3e7;border-radius:8px;padding:10px 16px;min-width:130px}
.card b{display:block;font-size:20px}.card span{color:#66707a;font-size:13px}
table{border-collapse:collapse}td,th{text-align:left;padding:3px 24px 3px 0;font-weight:normal;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:inline-block;height:10px;background:#2f7ed8;border-radius:2px}
pre{overflow-x:auto;padding:14px;border:1px solid #dfe3e7;border-radius:8px;font-size:13px;line-height:1.4}
svg.sp{max-width:100%;height:auto}
@media (prefers-color-scheme:dark){body{color:#e4e8eb;background:#14181c}
.lead,td.what,th,.card span{color:#98a2ac}.card,pre{border-color:#2b3238}}
)";

/// A table row of a name and numbers, with a bar for `share` if it is not negative.
std::string row(const std::string& name, const std::vector<std::string>& numbers,
                double share = -1) {
  std::string text = fmt::format("<tr><td class=\"what\">{}</td>", escape_xml(name));
  for (const std::string& number : numbers) {
    text += fmt::format("<td class=\"number\">{}</td>", number);
  }
  if (share >= 0) {
    text += fmt::format("<td><span class=\"bar\" style=\"width:{:.0f}px\"></span></td>",
                        200 * std::min(share, 1.0));
  }
  return text + "</tr>\n";
}

std::string head(const std::vector<std::string>& cells) {
  std::string text = "<tr>";
  for (std::size_t i = 0; i < cells.size(); ++i) {
    text += fmt::format("<th{}>{}</th>", i == 0 ? "" : " class=\"number\"", cells[i]);
  }
  return text + "</tr>\n";
}

std::string percent(double share) { return fmt::format("{:.0f}%", 100 * share); }

std::string card(const std::string& value, const std::string& what) {
  return fmt::format("<div class=\"card\"><b>{}</b><span>{}</span></div>\n", escape_xml(value),
                     escape_xml(what));
}

std::string cards(const RunSummary& run) {
  std::string text = "<div class=\"cards\">\n";
  if (run.last_loss) text += card(fmt::format("{:.4f}", *run.last_loss), "loss of the last step");
  if (run.recent_steps > 1) {
    text += card(fmt::format("{:.4f}", run.recent_loss),
                 fmt::format("mean loss of the last {} steps", run.recent_steps));
  }
  if (run.last_evaluation) {
    text += card(fmt::format("{:.4f}", run.last_evaluation->loss),
                 fmt::format("last evaluation, step {}", run.last_evaluation->step));
  }
  if (run.best_evaluation && run.best_evaluation->step != run.last_evaluation->step) {
    text += card(fmt::format("{:.4f}", run.best_evaluation->loss),
                 fmt::format("best evaluation, step {}", run.best_evaluation->step));
  }
  text += card(format_count(static_cast<double>(run.steps)), "steps");
  if (run.skipped > 0) text += card(std::to_string(run.skipped), "steps skipped");
  text += card(format_count(run.tokens), "tokens");
  text += card(format_seconds(std::min(run.seconds, 1e12)), "in all steps");
  text += card(format_count(run.tokens_per_second()), "tokens per second");
  text += card(percent(run.mean_mfu), "MFU");
  text += card(format_bytes(run.rss_peak_bytes), "peak memory of the largest rank");
  if (run.energy_joules) text += card(fmt::format("{:.0f} J", *run.energy_joules), "energy");
  return text + "</div>\n";
}

std::string bounds(const RunSummary& run) {
  if (run.bounds.empty()) return "";
  std::string text = "<h2>What bound the run</h2>\n<table>\n";
  text += head({"busiest lane of a step", "steps", "share", "busy, of those steps"});
  for (const BoundShare& bound : run.bounds) {
    const double share = static_cast<double>(bound.steps) / static_cast<double>(run.steps);
    text += row(bound.lane, {std::to_string(bound.steps), percent(share), percent(bound.fraction)},
                share);
  }
  return text + "</table>\n";
}

std::string lanes(const RunSummary& run) {
  if (run.seconds == 0) return "";
  std::array<std::size_t, kLanes.size()> order{};
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [&run](std::size_t lane) { return run.lane_seconds[lane]; });
  std::string text =
      "<h2>Lanes, the slowest first</h2>\n<p class=\"lead\">Lanes work at the same time: together "
      "they may take more than the step.</p>\n<table>\n";
  text += head({"lane", "per step", "of the step"});
  for (const std::size_t lane : order) {
    const double share = run.lane_seconds[lane] / run.seconds;
    text += row(
        kLanes[lane].title,
        {format_seconds(run.lane_seconds[lane] / static_cast<double>(run.steps)), percent(share)},
        share);
  }
  text += "</table>\n<p>Slowest steps: ";
  for (std::size_t i = 0; i < run.slowest.size(); ++i) {
    const StepMetrics& step = run.slowest[i];
    text += fmt::format("{}step {} with {}", i == 0 ? "" : ", ", step.step,
                        format_seconds(std::clamp(step.seconds, 0.0, 1e12)));
  }
  return text + fmt::format("; the median is {}.</p>\n",
                            format_seconds(std::min(run.median_step_seconds, 1e12)));
}

std::string swap(const RunSummary& run, const std::optional<RunDescription>& description) {
  if (run.swap_read == 0 && run.swap_written == 0) return "";
  const auto steps = static_cast<double>(run.steps);
  std::string text = "<h2>Swap</h2>\n<table>\n" + head({"all ranks", "all steps", "per step"});
  text += row("read", {format_traffic(run.swap_read), format_traffic(run.swap_read / steps)});
  text +=
      row("written", {format_traffic(run.swap_written), format_traffic(run.swap_written / steps)});
  text += "</table>\n";
  if (!description) return text;
  for (const DriveWear& drive : description->drives) {
    text += fmt::format("<p>{}: {}.</p>\n", escape_xml(drive.device),
                        drive.wear ? percent(*drive.wear) + " of its rated writes at the start"
                                   : "does not tell its wear");
  }
  return text;
}

std::string plan(const RunSummary& run, const RunDescription& description) {
  std::string text = "<h2>Plan</h2>\n";
  if (description.planned_step_seconds > 0 && run.steps > 0) {
    text += fmt::format("<p>A step was planned to take {}, bound by {}; it took {} (median).</p>\n",
                        format_seconds(std::min(description.planned_step_seconds, 1e12)),
                        escape_xml(description.planned_bound),
                        format_seconds(std::min(run.median_step_seconds, 1e12)));
  }
  return text + fmt::format("<pre>{}</pre>\n", escape_xml(description.plan));
}

std::string settings(const RunDescription& description) {
  if (description.settings.empty()) return "";
  std::string text = "<h2>Settings</h2>\n<table>\n";
  for (const auto& [flag, value] : description.settings) {
    text += fmt::format("<tr><td class=\"what\">{}</td><td>{}</td></tr>\n", escape_xml(flag),
                        escape_xml(value));
  }
  return text + "</table>\n";
}

}  // namespace

std::string make_report(const Run& run, const std::optional<RunDescription>& description) {
  const RunSummary summary = summarize(run.history);
  const std::string name = escape_xml(run.name);
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width\"/>\n"
      "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
      name, kStyle, name, escape_xml(summary_line(summary)));
  page += cards(summary);
  page += bounds(summary);
  page += lanes(summary);
  page += swap(summary, description);
  page += "<h2>Over the steps</h2>\n" + draw_runs({run});
  if (description) page += plan(summary, *description) + settings(*description);
  return page + "</body>\n</html>\n";
}

void write_report(const std::filesystem::path& directory, const std::filesystem::path& file,
                  std::vector<std::string>& warnings) {
  const std::vector<Run> runs = read_runs({directory}, warnings);
  replace_file(file, make_report(runs.front(), read_description(directory)));
}

}  // namespace strata::plot
