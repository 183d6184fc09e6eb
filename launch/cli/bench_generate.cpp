#include <fmt/format.h>

#include "checkpoint/pretrained_model.h"
#include "core/error.h"
#include "core/process.h"
#include "launch/cli/bench_targets.h"
#include "launch/generation_bench/runner.h"
#include "launch/plot/report.h"
#include "parallel/machine_profile.h"
#include "swap/device_profile.h"
#include "swap/directory_facts.h"
#include "swap/pcie_link.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kDramShare = 0.8;
constexpr std::uint64_t kSeed = 1;

struct ExaminedTier {
  GenerationTier tier;
  std::uint64_t free_bytes = 0;
};

ExaminedTier examine(const TierChoice& choice, double limit, const DeviceProfiles& profiles) {
  ExaminedTier result;
  result.tier.name = choice.name;
  result.tier.directory = choice.directory;
  result.tier.read_limit = limit;
  if (choice.directory.empty()) return result;
  const DirectoryFacts facts = probe_directory(choice.directory);
  result.free_bytes = facts.free_bytes;
  result.tier.device = facts.block_device;
  result.tier.link = describe(pcie_links(facts.block_device));
  const auto found = profiles.by_device.find(device_key(facts));
  if (found != profiles.by_device.end()) result.tier.read = found->second.read;
  return result;
}

std::vector<ExaminedTier> examine_tiers(const GenerateBenchOptions& options, Log& log) {
  const DeviceProfiles profiles = load_device_profiles(device_profile_path());
  if (!profiles.warning.empty()) log.warn(profiles.warning);
  std::vector<ExaminedTier> tiers;
  for (const TierChoice& choice : options.tiers) {
    tiers.push_back(examine(choice, options.limit_of(choice.name), profiles));
  }
  return tiers;
}

MachineProfile measured_machine(Log& log) {
  const LoadedMachineProfile loaded = load_machine_profile(machine_profile_path());
  if (!loaded.warning.empty()) log.warn(loaded.warning);
  return loaded.profile;
}

PretrainedModel open_model(const std::string& name, const GenerateBenchOptions& options) {
  const bool is_directory = fs::is_regular_file(fs::path(name) / "config.json");
  if (!is_directory) return init_pretrained(preset(name), kSeed);
  if (options.random_weights) {
    return init_pretrained(read_config(fs::path(name) / "config.json"), kSeed);
  }
  return load_pretrained(name);
}

std::vector<MeasuredRate> rates_of(const GenerateBenchOptions& options,
                                   const MachineProfile& machine) {
  std::vector<MeasuredRate> rates{
      {"reading memory", machine.memory_read, true, "strata bench memory"}};
  for (const std::string& weights : options.weights) {
    const WeightStorage storage = storage_of(weights, options.kv.front());
    const char* more = storage.compute == Dtype::kF32 ? " --compute fp32" : "";
    rates.push_back({fmt::format("products in {}", weights),
                     machine.products(storage.compute, storage.weights), false,
                     fmt::format("strata bench matmul{}", more)});
  }
  return rates;
}

/// Whether there is energy to be had, before hours go by.
void try_energy(EnergyRecorder& energy, GenerationReport& report) {
  energy.begin();
  const EnergyReading reading = energy.end();
  report.energy_missing = reading.missing;
  if (reading.joules) report.energy_source = energy.source();
}

/// All cells: models x tiers x formats x batches.
void run_cells(const GenerateBenchOptions& options, const std::vector<ExaminedTier>& tiers,
               GenerationSetup setup, EnergyRecorder& energy, Runtime& runtime,
               GenerationReport& report) {
  const auto status = [&runtime](const std::string& text) { runtime.log().status(text); };
  for (const std::string& name : options.models) {
    PretrainedModel model = open_model(name, options);
    model.freeze_all();
    setup.model = name;
    for (const ExaminedTier& examined : tiers) {
      setup.tier = examined.tier;
      setup.drive_bytes = examined.free_bytes;
      for (const std::string& weights : options.weights) {
        for (const std::string& kv : options.kv) {
          setup.weights = weights;
          setup.kv = kv;
          auto cells = run_generation_cells(runtime.context(), model, setup, options.batches,
                                            energy, status);
          for (GenerationCell& cell : cells) report.cells.push_back(std::move(cell));
        }
      }
    }
  }
  status("");
}

}  // namespace

int bench_generate(const BenchOptions& bench, Runtime& runtime) {
  const GenerateBenchOptions& options = bench.generate;
  GenerationReport report;
  report.machine = runtime.binding().description;
  if (!options.prices.empty()) report.prices = read_prices(options.prices);
  const std::vector<ExaminedTier> tiers = examine_tiers(options, runtime.log());
  for (const ExaminedTier& examined : tiers) report.tiers.push_back(examined.tier);
  GenerationSetup setup;
  setup.prompt = options.prompt_tokens;
  setup.generated = options.new_tokens;
  setup.rows = options.rows;
  setup.rounds = static_cast<int>(options.rounds);
  setup.io.kind = bench.io_engine;
  setup.machine = measured_machine(runtime.log());
  setup.dram_bytes = options.dram.value_or(
      static_cast<std::uint64_t>(kDramShare * static_cast<double>(available_memory_bytes())));
  report.rates = rates_of(options, setup.machine);
  EnergyRecorder energy({.power_command = options.power_command});
  try_energy(energy, report);
  run_cells(options, tiers, setup, energy, runtime, report);
  if (!options.svg.empty()) plot::replace_file(options.svg, draw_generation(report));
  fmt::print("{}\n", bench.json ? generation_json(report) : generation_table(report));
  return 0;
}

}  // namespace strata::cli
