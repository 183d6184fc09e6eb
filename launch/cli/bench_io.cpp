#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/units.h"
#include "launch/cli/bench_targets.h"
#include "launch/cli/print_json.h"
#include "swap/directory_facts.h"
#include "swap/io_benchmark.h"

namespace strata::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRounds = 3;
constexpr unsigned kSweptDepths[] = {4, 16, 32, 64};

/// One directory: what was measured there.
struct DriveResult {
  std::string directory;
  std::string device;
  IoLoad load;  ///< with the best engine, block size and depth of a sweep
  std::vector<IoSweepPoint> sweep;
  IoComparison read, write, mixed;
  DeviceProfile profile() const {
    return {.read = read.ours.read,
            .write = write.ours.write,
            .mixed_read = mixed.ours.read,
            .mixed_write = mixed.ours.write,
            .block_bytes = load.engine.block_bytes,
            .queue_depth = load.engine.queue_depth};
  }
};

IoLoad first_load(const BenchOptions& options) {
  IoLoad load;
  load.kind = IoLoad::Kind::kMixed;
  load.read_share = options.read_share;
  load.write_share = 1 - options.read_share;
  load.seconds = options.seconds;
  load.engine = {.kind = options.io_engine,
                 .queue_depth = static_cast<unsigned>(options.depth),
                 .block_bytes = static_cast<std::size_t>(options.block_size)};
  return load;
}

/// Short runs of everything; the shallowest queue and smallest block within 2% of the best is kept,
/// since pools are made of them.
void sweep(const BenchOptions& options, const IoBenchmark& benchmark, DriveResult& result) {
  using Kind = IoEngineOptions::Kind;
  std::vector<Kind> engines{options.io_engine};
  if (options.io_engine == Kind::kAuto) engines = {Kind::kUring, Kind::kThreads};
  IoLoad load = result.load;
  load.seconds = options.seconds / 5;
  for (const Kind engine : engines) {
    try {
      const auto points = benchmark.sweep(load, sweep_block_bytes(), kSweptDepths, {{engine}});
      result.sweep.insert(result.sweep.end(), points.begin(), points.end());
    } catch (const IoError&) {
      throw;
    } catch (const Error&) {  // io_uring is not to be had here: the threads are swept
      if (engine != Kind::kUring || options.io_engine == Kind::kUring) throw;
    }
  }
  double best = 0;
  for (const IoSweepPoint& point : result.sweep) best = std::max(best, point.bandwidth.sum());
  const auto bytes_in_flight = [](const IoSweepPoint& point) {
    return point.load.engine.block_bytes * point.load.engine.queue_depth;
  };
  const IoSweepPoint* chosen = nullptr;
  for (const IoSweepPoint& point : result.sweep) {
    if (point.bandwidth.sum() < 0.98 * best) continue;
    if (chosen == nullptr || bytes_in_flight(point) < bytes_in_flight(*chosen)) chosen = &point;
  }
  if (chosen != nullptr) result.load.engine = chosen->load.engine;
}

DriveResult measure(const BenchOptions& options, const std::string& directory, Log& log) {
  DriveResult result;
  result.directory = directory;
  result.device = device_key(probe_directory(directory));
  result.load = first_load(options);
  const IoBenchmark benchmark(directory, options.file_size);
  for (const std::string& warning : benchmark.warnings()) log.warn(warning);
  if (options.sweep) sweep(options, benchmark, result);
  const auto compare = [&](IoLoad::Kind kind) {
    IoLoad load = result.load;
    load.kind = kind;
    load.seconds = options.seconds / kRounds;
    return benchmark.compare_with_fio(load, kRounds);
  };
  result.read = compare(IoLoad::Kind::kRead);
  result.write = compare(IoLoad::Kind::kWrite);
  result.mixed = compare(IoLoad::Kind::kMixed);
  return result;
}

const char* engine_name(IoEngineOptions::Kind kind) {
  switch (kind) {
    case IoEngineOptions::Kind::kAuto:
      return "auto";
    case IoEngineOptions::Kind::kUring:
      return "uring";
    case IoEngineOptions::Kind::kThreads:
      return "threads";
  }
  return "";
}

Json comparison_json(const IoComparison& comparison) {
  Json json = {{"read", comparison.ours.read}, {"write", comparison.ours.write}};
  json["ceiling_fio"] = comparison.fio
                            ? Json{{"read", comparison.fio->read}, {"write", comparison.fio->write}}
                            : Json(nullptr);
  json["fraction"] = comparison.fio ? Json(comparison.fraction()) : Json(nullptr);
  return json;
}

Json point_json(const IoLoad& load) {
  return {{"engine", engine_name(load.engine.kind)},
          {"block_bytes", load.engine.block_bytes},
          {"queue_depth", load.engine.queue_depth}};
}

Json to_json(const DriveResult& result) {
  Json json = {{"directory", result.directory},
               {"device", result.device},
               {"unit", "bytes per second"},
               {"shape", point_json(result.load)},
               {"read", comparison_json(result.read)},
               {"write", comparison_json(result.write)},
               {"mixed", comparison_json(result.mixed)}};
  if (result.sweep.empty()) return json;
  json["sweep"] = Json::array();
  for (const IoSweepPoint& point : result.sweep) {
    Json row = point_json(point.load);
    row["read"] = point.bandwidth.read;
    row["write"] = point.bandwidth.write;
    json["sweep"].push_back(row);
  }
  return json;
}

void print_table(const DriveResult& result) {
  const double giga = 1e9;
  fmt::print("{} ({}), {} blocks, {} in flight, engine {}\n", result.directory, result.device,
             format_bytes(result.load.engine.block_bytes), result.load.engine.queue_depth,
             engine_name(result.load.engine.kind));
  for (const IoSweepPoint& point : result.sweep) {
    fmt::print("  {:>8} {:>9} x {:<3} {:>8.2f} GB/s read {:>8.2f} GB/s written\n",
               engine_name(point.load.engine.kind), format_bytes(point.load.engine.block_bytes),
               point.load.engine.queue_depth, point.bandwidth.read / giga,
               point.bandwidth.write / giga);
  }
  fmt::print("  {:<8}{:>12}{:>12}{:>10}\n", "GB/s", "ours", "fio", "fraction");
  const auto line = [&](const char* what, const IoComparison& comparison) {
    const std::string fio =
        comparison.fio ? fmt::format("{:.2f}", comparison.fio->sum() / giga) : "no fio";
    const std::string fraction =
        comparison.fio ? fmt::format("{:.2f}", comparison.fraction()) : "-";
    fmt::print("  {:<8}{:>12.2f}{:>12}{:>10}\n", what, comparison.ours.sum() / giga, fio, fraction);
  };
  line("read", result.read);
  line("write", result.write);
  line("mixed", result.mixed);
}

void keep_drive(const DriveResult& result, Log& log) {
  const DeviceProfile profile = result.profile();
  // A share of 0 or 1 is a mixed run of one direction: nothing a plan could use.
  if (profile.mixed_read <= 0 || profile.mixed_write <= 0) return;
  try {
    save_device_profile(device_profile_path(), result.device, profile);
  } catch (const Error& error) {
    log.warn(fmt::format("the figures were not kept: {}", error.what()));
  }
}

}  // namespace

int bench_io(const BenchOptions& options, Runtime& runtime) {
  Json drives = Json::array();
  for (const auto& path : options.swap) {
    const DriveResult result = measure(options, path.string(), runtime.log());
    keep_drive(result, runtime.log());
    if (options.json) {
      drives.push_back(to_json(result));
    } else {
      print_table(result);
    }
  }
  if (options.json) {
    print_json({{"drives", drives}});
  }
  return 0;
}

}  // namespace strata::cli
