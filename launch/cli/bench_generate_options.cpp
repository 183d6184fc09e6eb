#include "launch/cli/bench_generate_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/model/config.h"
#include "core/units.h"
#include "launch/cli/flags.h"
#include "launch/generation_bench/runner.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostTokens = 1 << 24;
constexpr std::int64_t kMostTexts = 1 << 20;

/// "--flag A,B"; each part goes through `parse`, and together they replace `target`.
template <typename Value, typename Parse>
void add_list(CLI::App& app, const std::string& flag, std::vector<Value>& target, Parse parse,
              const std::string& type, const std::string& help) {
  app.add_option_function<std::vector<std::string>>(
         flag,
         [&target, parse](const std::vector<std::string>& texts) {
           target.clear();
           for (const std::string& text : texts) target.push_back(parse(text));
         },
         help)
      ->type_name(type)
      ->delimiter(',')
      ->allow_extra_args(false);
}

std::string same_text(const std::string& text) { return text; }

TierChoice parse_tier(const std::string& text) {
  const std::size_t equals = text.find('=');
  const TierChoice tier{text.substr(0, equals),
                        equals == std::string::npos ? "" : text.substr(equals + 1)};
  const bool is_memory = tier.name == "dram";
  if (!tier.name.empty() && is_memory == (equals == std::string::npos) &&
      is_memory == tier.directory.empty()) {
    return tier;
  }
  throw UsageError(fmt::format(
      "--tier: \"{}\" is neither dram nor a drive with its directory, such as gen5=/nvme5", text));
}

ReadLimit parse_limit(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string tier = equals == std::string::npos ? "" : text.substr(0, equals);
  const std::string rate = equals == std::string::npos ? text : text.substr(equals + 1);
  const std::uint64_t bytes = parse_bytes("--limit-read", rate);
  if (bytes > 0 && (equals == std::string::npos || !tier.empty())) {
    return {tier, static_cast<double>(bytes)};
  }
  throw UsageError(fmt::format(
      "--limit-read: \"{}\" is no bandwidth above 0, such as 3.5GB or gen4=7GB (a second)", text));
}

std::int64_t parse_batch(const std::string& text) {
  std::int64_t batch = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), batch);
  if (fault == std::errc() && end == text.data() + text.size() && batch > 0 &&
      batch <= kMostTexts) {
    return batch;
  }
  throw UsageError(
      fmt::format("--batch: \"{}\" is not a whole number from 1 to {}", text, kMostTexts));
}

bool is_preset(const std::string& name) {
  const std::vector<std::string> names = preset_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_models(const GenerateBenchOptions& options) {
  for (const std::string& model : options.models) {
    if (is_preset(model) || fs::is_regular_file(fs::path(model) / "config.json")) continue;
    throw UsageError(
        fmt::format("--model: \"{}\" is neither a model directory nor a preset; presets are {}",
                    model, fmt::join(preset_names(), ", ")));
  }
}

void check_tiers(const GenerateBenchOptions& options) {
  std::set<std::string> names;
  for (const TierChoice& tier : options.tiers) {
    if (!names.insert(tier.name).second) {
      throw UsageError(
          fmt::format("--tier: {} is there twice; give each a name of its own", tier.name));
    }
    if (!tier.directory.empty()) check_directory("--tier", tier.directory);
  }
  for (const ReadLimit& limit : options.limits) {
    const bool known = limit.tier.empty() || (names.contains(limit.tier) && limit.tier != "dram");
    if (!known) {
      throw UsageError(
          fmt::format("--limit-read: there is no drive \"{}\" among the tiers", limit.tier));
    }
  }
}

}  // namespace

double GenerateBenchOptions::limit_of(const std::string& tier) const {
  double found = 0;
  for (const ReadLimit& limit : limits) {
    if (limit.tier == tier || (limit.tier.empty() && found == 0)) found = limit.bytes_per_second;
  }
  return tier == "dram" ? 0 : found;
}

void add_generate_flags(CLI::App& app, GenerateBenchOptions& options) {
  add_list(app, "--model", options.models, same_text, "NAME[,NAME...]",
           "generate: presets, with fresh weights, or model directories; default opt-125m");
  add_switch(app, "--random-weights", options.random_weights,
             "generate: fresh weights for model directories too: only config.json is read");
  add_list(app, "--tier", options.tiers, parse_tier, "NAME=DIR[,NAME=DIR...]",
           "generate: where weights rest: dram, or a drive with a name of your own; on a drive "
           "all weights stream");
  add_list(app, "--limit-read", options.limits, parse_limit, "[NAME=]RATE",
           "generate: reads take as long as a slower drive would need, e.g. gen4=7GB (a second); "
           "results are labelled as emulated");
  add_list(app, "--batch", options.batches, parse_batch, "N[,N...]",
           "generate: texts at once; default 1,2,4,8,16,32,64,128,200,256");
  add_list(app, "--weights", options.weights, same_text, "FORMAT[,...]",
           "generate: formats of weights: bf16, fp32, int8, int4");
  add_list(app, "--kv", options.kv, same_text, "FORMAT[,...]",
           "generate: formats of keys and values: fp32 with weights in fp32, else bf16; int8, int4");
  add_whole(app, "--prompt-tokens", options.prompt_tokens, 1, kMostTokens,
            "generate: of each text");
  add_whole(app, "--new-tokens", options.new_tokens, 1, kMostTokens, "generate: of each text");
  add_whole(app, "--rows", options.rows, 0, kMostTokens,
            "generate: tokens of a pass at most; 0: as `strata generate`");
  add_whole(app, "--rounds", options.rounds, 1, 1000,
            "generate: each cell so many times; the median counts");
  add_size(app, "--dram", options.dram,
           "generate: memory for everything; default 0.8 of what is available");
  app.add_option("--power-command", options.power_command,
                 "generate: prints the watts of the machine; default the processor's counters")
      ->type_name("COMMAND");
  add_path(app, "--prices", options.prices, "FILE",
           "generate: JSON with currency, system, tiers: adds tokens/s per 1000 units of money");
  add_path(app, "--svg", options.svg, "FILE", "generate: draws the results too");
}

void check(const GenerateBenchOptions& options) {
  check_models(options);
  check_tiers(options);
  for (const std::string& weights : options.weights) {
    for (const std::string& kv : options.kv) storage_of(weights, kv);
  }
  if (!options.prices.empty()) check_files("--prices", {options.prices});
  if (!options.svg.empty() && options.svg.extension() != ".svg") {
    throw UsageError(fmt::format("--svg: {} is to be an .svg file", options.svg.string()));
  }
}

}  // namespace strata::cli
