// Seconds per training step beside their bound, on one rank, as docs/performance.md defines it:
//
//   compute   CPU seconds of a step with everything in DRAM, over the cores, per phase
//   I/O       max(R / B_r, W / B_w, (R + W) / B_mix) with fio's bandwidths of the same sitting
//   streamed  (--residency none) against the sum over the phases of the larger of the two
//   auto      (--dram) against the larger of all compute and all I/O
//
//   strata_step_bench --preset gpt-162m --sequences 2 --sequence_length 256 --swap DIR
//   --dram 1.5GiB
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/model/transformer.h"
#include "core/process.h"
#include "core/units.h"
#include "launch/runtime.h"
#include "parallel/trainer.h"
#include "swap/io_benchmark.h"

namespace strata {
namespace {

struct Options {
  std::string preset = "gpt-162m";
  std::string swap;
  std::string dram = "1.5GiB";
  std::string json;
  std::int64_t sequences = 2;
  std::int64_t sequence_length = 256;
  int micro_batches = 1;
  int steps = 5;
  double io_seconds = 3;
  bool all_dram = true;  // the compute reference; off for models that do not fit
};

Batch random_batch(const StepShape& shape, std::int64_t vocabulary, std::uint64_t seed) {
  Batch batch;
  for (int i = 0; i < shape.micro_batches; ++i) {
    MicroBatch& micro_batch = batch.micro_batches.emplace_back();
    micro_batch.sequences = shape.sequences;
    micro_batch.tokens_per_sequence = shape.sequence_length;
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const auto id =
          static_cast<std::int32_t>((seed >> 33) % static_cast<std::uint64_t>(vocabulary));
      micro_batch.ids.push_back(id);
      micro_batch.labels.push_back(static_cast<std::int32_t>((id + 1) % vocabulary));
      micro_batch.positions.push_back(static_cast<std::int32_t>(t % shape.sequence_length));
    }
  }
  return batch;
}

/// Medians over the steps after the first two.
struct Measured {
  double seconds = 0;
  double cpu_forward = 0;
  double cpu_backward = 0;
  double read = 0;
  double written = 0;
  double rss_peak = 0;
  SwapTraffic predicted;
  std::size_t planned_dram = 0;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Measured measure(Runtime& runtime, const Model& model, const TrainerOptions& trainer_options,
                 int steps) {
  Trainer trainer(runtime.context(), model, trainer_options, random_parameters(1));
  const Batch batch = random_batch(trainer_options.shape, model.vocabulary_size(), 7);
  std::vector<double> seconds, forward, backward, read, written;
  for (int step = 0; step < steps + 2; ++step) {
    const StepReport report = trainer.step(batch);
    if (step < 2) continue;
    seconds.push_back(report.seconds);
    forward.push_back(report.cpu_seconds_forward);
    backward.push_back(report.cpu_seconds_backward);
    read.push_back(static_cast<double>(report.swap_bytes_read));
    written.push_back(static_cast<double>(report.swap_bytes_written));
  }
  return {.seconds = median(seconds),
          .cpu_forward = median(forward),
          .cpu_backward = median(backward),
          .read = median(read),
          .written = median(written),
          .rss_peak = static_cast<double>(rss_peak_bytes()),
          .predicted = trainer.predicted_traffic(),
          .planned_dram = trainer.memory_plan().dram()};
}

DeviceProfile drive_profile(const Options& options, double read_share, double write_share) {
  const IoBenchmark benchmark(options.swap);
  const auto run = [&](IoLoad::Kind kind) {
    IoLoad load{.kind = kind,
                .read_share = read_share,
                .write_share = write_share,
                .seconds = options.io_seconds};
    const std::optional<IoBandwidth> fio = benchmark.measure_fio(load);
    return fio ? *fio : benchmark.measure(load);
  };
  DeviceProfile profile;
  profile.read = run(IoLoad::Kind::kRead).read;
  profile.write = run(IoLoad::Kind::kWrite).write;
  const IoBandwidth mixed = run(IoLoad::Kind::kMixed);
  profile.mixed_read = mixed.read;
  profile.mixed_write = mixed.write;
  return profile;
}

struct Row {
  std::string what;
  Measured measured;
  double bound = 0;
};

void print(const std::vector<Row>& rows, const DeviceProfile& drive, double parameters,
           const Options& options) {
  fmt::print(
      "{}: {} parameters, {} x {} x {} tokens; drive {:.2f} read, {:.2f} write, {:.2f} mixed "
      "GB/s\n",
      options.preset, format_count(parameters), options.micro_batches, options.sequences,
      options.sequence_length, drive.read / 1e9, drive.write / 1e9,
      (drive.mixed_read + drive.mixed_write) / 1e9);
  fmt::print("{:<10}{:>10}{:>10}{:>9}{:>10}{:>10}{:>12}{:>12}\n", "", "s/step", "bound", "ratio",
             "B/param r", "B/param w", "DRAM plan", "peak RSS");
  nlohmann::ordered_json json = {{"preset", options.preset}, {"parameters", parameters}};
  for (const Row& row : rows) {
    const Measured& m = row.measured;
    fmt::print("{:<10}{:>10.3f}{:>10.3f}{:>9.2f}{:>10.2f}{:>10.2f}{:>12}{:>12}\n", row.what,
               m.seconds, row.bound, m.seconds / row.bound, m.read / parameters,
               m.written / parameters, format_bytes(m.planned_dram),
               format_bytes(static_cast<std::uint64_t>(m.rss_peak)));
    json["rows"].push_back({{"what", row.what},
                            {"seconds", m.seconds},
                            {"bound", row.bound},
                            {"read_per_parameter", m.read / parameters},
                            {"written_per_parameter", m.written / parameters},
                            {"planned_dram", m.planned_dram},
                            {"rss_peak", m.rss_peak}});
  }
  if (!options.json.empty()) std::ofstream(options.json) << json.dump(2) << '\n';
}

int run_benchmark(Runtime& runtime, const Options& options) {
  const Model model = make_transformer(preset(options.preset));
  TrainerOptions trainer;
  trainer.shape = {.micro_batches = options.micro_batches,
                   .sequences = options.sequences,
                   .sequence_length = options.sequence_length};
  trainer.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1e-4};
  const auto cores = static_cast<double>(runtime.binding().compute_threads);

  std::vector<Row> rows;
  // Streamed first: the peak of memory is that of the whole process.
  TrainerOptions streamed = trainer;
  streamed.placement.swap = {{.path = options.swap, .weight = 1}};
  streamed.placement.residency = false;
  streamed.placement.dram_bytes = parse_bytes("--dram", options.dram);
  const Measured none = measure(runtime, model, streamed, options.steps);
  streamed.placement.residency = true;
  const Measured automatic = measure(runtime, model, streamed, options.steps);
  const DeviceProfile drive = drive_profile(options, none.read, none.written);
  Measured reference = none;
  if (options.all_dram) reference = measure(runtime, model, trainer, options.steps);

  const double forward = reference.cpu_forward / cores;
  const double backward = reference.cpu_backward / cores;
  const auto io = [&](std::uint64_t read, std::uint64_t written) {
    return io_seconds(static_cast<double>(read), static_cast<double>(written), drive);
  };
  const SwapTraffic& p = none.predicted;
  rows.push_back({"none", none,
                  std::max(forward, io(p.forward_read, p.forward_written)) +
                      std::max(backward, io(p.backward_read, p.backward_written))});
  rows.push_back({"auto", automatic,
                  std::max(forward + backward,
                           io(automatic.predicted.read(), automatic.predicted.written()))});
  if (options.all_dram) rows.push_back({"DRAM", reference, forward + backward});
  print(rows, drive, static_cast<double>(model.parameter_count()), options);
  return 0;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    strata::Options options;
    CLI::App app("Seconds per training step beside their bound");
    app.add_option("--preset", options.preset)->capture_default_str();
    app.add_option("--swap", options.swap)->required();
    app.add_option("--dram", options.dram)->capture_default_str();
    app.add_option("--json", options.json);
    app.add_option("--sequences", options.sequences)->capture_default_str();
    app.add_option("--sequence_length", options.sequence_length)->capture_default_str();
    app.add_option("--micro_batches", options.micro_batches)->capture_default_str();
    app.add_option("--steps", options.steps)->capture_default_str();
    app.add_option("--io_seconds", options.io_seconds)->capture_default_str();
    app.add_flag("!--no_all_dram", options.all_dram, "take compute from the streamed run instead");
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    return strata::run_benchmark(runtime, options);
  });
}
