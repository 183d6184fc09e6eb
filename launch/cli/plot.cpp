#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/log.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/plot/charts.h"
#include "launch/plot/report.h"
#include "launch/plot/run_files.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

struct PlotOptions {
  std::vector<fs::path> runs;
  fs::path out;
  bool report = false;
};

/// Where the picture goes; nothing but pictures is ever replaced.
fs::path output_of(const PlotOptions& options) {
  const char* extension = options.report ? ".html" : ".svg";
  if (options.out.empty()) return options.report ? options.runs[0] / "report.html" : "plot.svg";
  if (options.out.extension() == extension) return options.out;
  throw UsageError(fmt::format("--out: {} is to be an {} file", options.out.string(), extension));
}

int run_plot(const PlotOptions& options) {
  if (options.report && (options.runs.size() != 1 || !fs::is_directory(options.runs[0]))) {
    throw UsageError("--report is of one run: name its directory, one only");
  }
  const fs::path out = output_of(options);
  std::vector<std::string> warnings;
  if (options.report) {
    plot::write_report(options.runs[0], out, warnings);
  } else {
    plot::replace_file(out, plot::draw_runs(plot::read_runs(options.runs, warnings)));
  }
  Log log(0);
  for (const std::string& warning : warnings) log.warn(warning);
  log.info(fmt::format("wrote {}", out.string()));
  return 0;
}

}  // namespace

void add_plot(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<PlotOptions>();
  CLI::App* command = app.add_subcommand("plot", "Draw the metrics of one or several runs");
  add_paths(
      *command, "DIR", options->runs, "",
      "what `strata train --out` wrote, or a metrics.jsonl; several are drawn over each other")
      ->required();
  add_path(*command, "--out,-o", options->out, "FILE",
           "the picture, an .svg file; without it plot.svg, or DIR/report.html");
  add_switch(*command, "--report", options->report,
             "write one HTML page about one run instead, with its plan and what bound it");
  command->callback([options, &chosen] { chosen = [options] { return run_plot(*options); }; });
}

}  // namespace strata::cli
