#include "launch/cli/placement_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/nearest_name.h"
#include "launch/cli/flags.h"

namespace strata::cli {
namespace {

constexpr std::array<std::pair<const char*, Place Placement::*>, 6> kSections = {{
    {"gradients", &Placement::gradients},
    {"hi", &Placement::hi},
    {"lo", &Placement::lo},
    {"m", &Placement::m},
    {"v", &Placement::v},
    {"weights", &Placement::weights},
}};
constexpr std::array<std::pair<const char*, Place>, 3> kPlaces = {
    {{"auto", Place::kAuto}, {"dram", Place::kDram}, {"swap", Place::kSwap}}};

[[noreturn]] void refuse_placement(const std::string& text, const std::string& part) {
  std::vector<std::string> names;
  for (const auto& [name, member] : kSections) names.emplace_back(name);
  for (const auto& [name, place] : kPlaces) names.emplace_back(name);
  const std::string nearest = nearest_name(part, names);
  const std::string hint = nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
  throw UsageError(fmt::format(
      "--place: \"{}\" is not gradients|hi|lo|m|v|weights = auto|dram|swap{}", text, hint));
}

bool puts_on_swap(const PlacementOptions& options) {
  const Placement& place = options.place;
  for (const Place chosen : {place.hi, place.lo, place.m, place.v, place.gradients, place.weights,
                             options.activations}) {
    if (chosen == Place::kSwap) return true;
  }
  return false;
}

void add_choice_flags(CLI::App& app, PlacementOptions& options) {
  add_choice<UpdateChoice>(
      app, "--update", options.update,
      {{"lazy", UpdateChoice::kLazy}, {"fused", UpdateChoice::kFused}},
      "lazy: in the next forward visit, clipped exactly; fused: in the backward visit");
  add_choice<Place>(app, "--activations", options.activations,
                    {{"auto", Place::kAuto}, {"dram", Place::kDram}, {"swap", Place::kSwap}},
                    "where activations between blocks wait for backward");
}

}  // namespace

void add_streaming_flags(CLI::App& app, PlacementOptions& options) {
  add_path_list(
      app, "--swap", options.swap, "DIR[,DIR...]",
      "directories for swap files, best one per drive; may be left out if all fits in DRAM");
  add_size(app, "--dram", options.dram,
           "memory of a rank for everything Strata holds, e.g. 1.5GiB; default 0.8 of what is "
           "available, "
           "shared by the ranks of a node");
  add_size(app, "--swap-capacity", options.swap_capacity,
           "most bytes of swap a rank may use; default all that is free");
  add_compute(app, options.compute,
              "type of products and activations; fp32 and fp16 read the whole master weight, fp16 "
              "scales the loss");
  add_choice<ResidencyChoice>(app, "--residency", options.residency,
                              {{"auto", ResidencyChoice::kAuto}, {"none", ResidencyChoice::kNone}},
                              "auto keeps in DRAM what saves most I/O; none streams everything");
  add_io_engine(app, options.io_engine, "auto: io_uring where the kernel allows it");
  add_whole(app, "--prefetch-depth", options.prefetch_depth, -1, 1024,
            "blocks read ahead of use; -1: as many as memory allows");
}

void add_placement_flags(CLI::App& app, PlacementOptions& options) {
  add_streaming_flags(app, options);
  add_choice_flags(app, options);
  const auto keep = [&options](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) parse_placement(text, options.place);
  };
  app.add_option_function<std::vector<std::string>>(
         "--place", keep,
         "where gradients, hi, lo, m, v or frozen weights rest, e.g. gradients=swap; default auto")
      ->type_name("SECTION=auto|dram|swap")
      ->delimiter(',');
  add_whole(
      app, "--stage", options.stage, 0, 3,
      "ZeRO: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters are partitioned");
}

void parse_placement(const std::string& text, Placement& placement) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) refuse_placement(text, text);
  const std::string section = text.substr(0, equals);
  const std::string place = text.substr(equals + 1);
  for (const auto& [section_name, member] : kSections) {
    if (section != section_name) continue;
    for (const auto& [place_name, value] : kPlaces) {
      if (place != place_name) continue;
      placement.*member = value;
      return;
    }
    refuse_placement(text, place);
  }
  refuse_placement(text, section);
}

void check_precision(const PlacementOptions& options) {
  if (options.compute == Dtype::kF16 && options.update == UpdateChoice::kFused) {
    throw UsageError(
        "--update fused has updated blocks before it knows whether the gradients of --compute fp16 "
        "overflow; use --update lazy, or --compute bf16");
  }
}

void check(const PlacementOptions& options) {
  check_precision(options);
  for (const auto& path : options.swap) {
    check_directory("--swap", path);
    if (access(path.c_str(), W_OK | X_OK) != 0) {
      throw UsageError(
          fmt::format("--swap: {} is not writable; choose another directory", path.string()));
    }
  }
  if (options.swap.empty() && puts_on_swap(options)) {
    throw UsageError(
        "--place or --activations puts something on swap, but there is no --swap (nvme_path of a "
        "configuration); name a directory on a fast drive");
  }
  if (options.dram && *options.dram == 0) {
    throw UsageError(
        "--dram: 0 bytes hold nothing; strata plan prints the smallest budget that works");
  }
}

}  // namespace strata::cli
