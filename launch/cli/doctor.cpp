#include "launch/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>

#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/print_json.h"

namespace strata::cli {
namespace {

struct DoctorOptions {
  std::vector<std::filesystem::path> swap;
  bool json = false;
};

nlohmann::ordered_json findings_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"subject", finding.subject},
                    {"status", name(finding.status)},
                    {"fact", finding.fact},
                    {"advice", finding.advice}});
  }
  nlohmann::ordered_json result;
  result["findings"] = std::move(list);
  return result;
}

void print_lines(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    fmt::print("{:<6}  {:<14} {}\n", name(finding.status), finding.subject, finding.fact);
    if (!finding.advice.empty()) fmt::print("{:<6}  {:<14} -> {}\n", "", "", finding.advice);
  }
}

int run_doctor(const DoctorOptions& options) {
  std::vector<Finding> findings = examine_machine();
  for (const auto& path : options.swap) findings.push_back(examine_swap(path.string()));
  if (options.json) {
    print_json(findings_json(findings));
  } else {
    print_lines(findings);
  }
  const bool broken = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.status == Finding::Status::kBroken;
  });
  return broken ? 1 : 0;
}

}  // namespace

void add_doctor(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<DoctorOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Say what of this machine helps or hinders, and what to do");
  add_path_list(*command, "--swap", options->swap, "DIR[,DIR...]", "directories for swap files");
  add_switch(*command, "--json", options->json, "print one JSON object");
  command->callback([options, &chosen] { chosen = [options] { return run_doctor(*options); }; });
}

}  // namespace strata::cli
