// Seconds per training step beside their bound, as docs/performance.md defines it:
//
//   compute   CPU seconds of a step with everything in DRAM, over the cores, per phase
//   I/O       max(R / B_r, W / B_w, (R + W) / B_mix) with fio's bandwidths of the same sitting
//   bound     the sum over the phases of the larger of the two
//   balanced  the larger of all compute and all I/O, if work could move between the phases
//
// Rows: none (--residency none), auto, dram (no swap), and delayed: `none` again with --delay_ms
// more for every transfer and memory for two chunks more in each lane.
//
// A model that does not fit takes its compute from a streamed run: --rows none auto.
//
//   strata_step_bench --preset gpt-162m --sequences 2 --sequence_length 256 --swap DIR
//   mpirun -n 2 strata_step_bench --preset gpt-1.3b --sequences 1 --swap DIR --dram 2GiB
//     --rows auto
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "checkpoint/parameter_patterns.h"
#include "core/model/transformer.h"
#include "core/process.h"
#include "core/units.h"
#include "launch/runtime.h"
#include "parallel/shard_updater.h"
#include "parallel/trainer.h"
#include "swap/io_benchmark.h"
#include "tests/support/decorated_engine.h"
#include "tests/support/delaying_io_engine.h"

namespace strata {
namespace {

struct Options {
  std::string preset = "gpt-162m";
  std::string swap;
  std::string dram = "1.5GiB";
  std::string json;
  std::vector<std::string> rows = {"none", "auto", "dram"};
  std::vector<std::string> train;  // patterns; empty: everything
  std::int64_t sequences = 2;
  std::int64_t sequence_length = 256;
  int micro_batches = 1;
  int steps = 5;
  int delay_ms = 10;
  double io_seconds = 3;
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

/// Medians over the steps after the first two; of several ranks the slowest.
struct Measured {
  double seconds = 0;
  double cpu_forward = 0;
  double cpu_backward = 0;
  double read = 0;  // bytes of all ranks
  double written = 0;
  double rss_peak = 0;
  SwapTraffic predicted;  // of this rank
  std::size_t planned_dram = 0;
  std::size_t chunk_bytes = 0;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Measured measure(Runtime& runtime, const Model& model, const TrainerOptions& trainer_options,
                 int steps) {
  Communicator& ranks = runtime.communicator();
  Trainer trainer(runtime.context(), model, trainer_options, random_parameters(1));
  const Batch batch = random_batch(trainer_options.shape, model.vocabulary_size(),
                                   7 + static_cast<std::uint64_t>(ranks.rank()));
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
  return {.seconds = ranks.max(median(seconds)),
          .cpu_forward = ranks.max(median(forward)),
          .cpu_backward = ranks.max(median(backward)),
          .read = ranks.sum(median(read)),
          .written = ranks.sum(median(written)),
          .rss_peak = ranks.max(static_cast<double>(rss_peak_bytes())),
          .predicted = trainer.predicted_traffic(),
          .planned_dram = trainer.memory_plan().dram(),
          .chunk_bytes = ShardUpdater::chunk_bytes(trainer.memory_plan().layout)};
}

/// Of the drive that all ranks share, by rank 0 while the others wait.
DeviceProfile drive_profile(Runtime& runtime, const Options& options, const Measured& ratio) {
  DeviceProfile profile;
  if (runtime.communicator().rank() == 0) {
    const IoBenchmark benchmark(options.swap);
    const auto run = [&](IoLoad::Kind kind) {
      const IoLoad load{.kind = kind,
                        .read_share = ratio.read,
                        .write_share = ratio.written,
                        .seconds = options.io_seconds};
      const std::optional<IoBandwidth> fio = benchmark.measure_fio(load);
      return fio ? *fio : benchmark.measure(load);
    };
    profile.read = run(IoLoad::Kind::kRead).read;
    profile.write = run(IoLoad::Kind::kWrite).write;
    const IoBandwidth mixed = run(IoLoad::Kind::kMixed);
    profile.mixed_read = mixed.read;
    profile.mixed_write = mixed.write;
  }
  runtime.communicator().broadcast(std::as_writable_bytes(std::span(&profile, 1)), 0);
  runtime.communicator().barrier();  // a broadcast is only enqueued
  return profile;
}

struct Row {
  std::string what;
  Measured measured;
  double bound = 0;
  double balanced = 0;
};

void print(const std::vector<Row>& rows, const DeviceProfile& drive, int ranks, double parameters,
           const Options& options) {
  fmt::print(
      "{}: {} parameters, {} ranks x {} x {} x {} tokens; drive {:.2f} read, {:.2f} write, {:.2f} "
      "mixed GB/s\n",
      options.preset, format_count(parameters), ranks, options.micro_batches, options.sequences,
      options.sequence_length, drive.read / 1e9, drive.write / 1e9,
      (drive.mixed_read + drive.mixed_write) / 1e9);
  fmt::print("{:<10}{:>8}{:>8}{:>7}{:>10}{:>7}{:>11}{:>11}{:>11}{:>11}\n", "", "s/step", "bound",
             "ratio", "balanced", "ratio", "B/param r", "B/param w", "DRAM plan", "peak RSS");
  nlohmann::ordered_json json = {{"preset", options.preset},
                                 {"parameters", parameters},
                                 {"ranks", ranks},
                                 {"drive_read", drive.read},
                                 {"drive_write", drive.write},
                                 {"drive_mixed", drive.mixed_read + drive.mixed_write}};
  for (const Row& row : rows) {
    const Measured& m = row.measured;
    fmt::print("{:<10}{:>8.3f}{:>8.3f}{:>7.2f}{:>10.3f}{:>7.2f}{:>11.2f}{:>11.2f}{:>11}{:>11}\n",
               row.what, m.seconds, row.bound, m.seconds / row.bound, row.balanced,
               m.seconds / row.balanced, m.read / parameters, m.written / parameters,
               format_bytes(m.planned_dram), format_bytes(static_cast<std::uint64_t>(m.rss_peak)));
    json["rows"].push_back({{"what", row.what},
                            {"seconds", m.seconds},
                            {"bound", row.bound},
                            {"balanced", row.balanced},
                            {"cpu_forward", m.cpu_forward},
                            {"cpu_backward", m.cpu_backward},
                            {"read_per_parameter", m.read / parameters},
                            {"written_per_parameter", m.written / parameters},
                            {"planned_dram", m.planned_dram},
                            {"rss_peak", m.rss_peak}});
  }
  if (!options.json.empty()) std::ofstream(options.json) << json.dump(2) << '\n';
}

class Benchmark {
 public:
  Benchmark(Runtime& runtime, const Options& options)
      : runtime_(runtime), options_(options), model_(make_transformer(preset(options.preset))) {
    for (const std::string& name :
         frozen_parameters(preset(options.preset), {.train = options.train})) {
      model_.freeze(name);
    }
    dram_.shape = {.micro_batches = options.micro_batches,
                   .sequences = options.sequences,
                   .sequence_length = options.sequence_length};
    dram_.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1e-4};
    auto_ = dram_;
    auto_.placement.swap = {{.path = options.swap, .weight = 1}};
    auto_.placement.dram_bytes = parse_bytes("--dram", options.dram);
    none_ = auto_;
    none_.placement.residency = false;
  }

  /// @pre options has a row that streams
  int run() {
    // The smallest first: the peak of memory is that of the whole process.
    if (has("none")) measure_row("none", none_);
    if (has("delayed")) measure_row("delayed", delayed());
    if (has("auto")) measure_row("auto", auto_);
    drive_ = drive_profile(runtime_, options_, rows_.front().measured);
    if (has("dram")) measure_row("dram", dram_);
    for (Row& row : rows_) set_bounds(row);
    if (runtime_.communicator().rank() == 0) {
      print(rows_, drive_, runtime_.communicator().size(),
            static_cast<double>(model_.parameter_count()), options_);
    }
    return 0;
  }

 private:
  bool has(const char* row) const { return std::ranges::count(options_.rows, row) > 0; }

  void measure_row(const std::string& what, const TrainerOptions& options) {
    rows_.push_back({what, measure(runtime_, model_, options, options_.steps)});
  }

  /// Two chunks more for each of the lanes that read, update and write.
  TrainerOptions delayed() const {
    constexpr std::uint64_t kMoreChunks = 3 * 2;
    TrainerOptions result = none_;
    *result.placement.dram_bytes += kMoreChunks * rows_.front().measured.chunk_bytes;
    result.make_engine =
        test::decorate<test::DelayingIoEngine>(std::chrono::milliseconds(options_.delay_ms));
    return result;
  }

  void set_bounds(Row& row) const {
    // The last row has the least I/O to wait for: its compute is the purest.
    const auto cores = static_cast<double>(runtime_.binding().compute_threads);
    const double forward = rows_.back().measured.cpu_forward / cores;
    const double backward = rows_.back().measured.cpu_backward / cores;
    const SwapTraffic& traffic = row.measured.predicted;
    const auto io = [&](std::uint64_t read, std::uint64_t written) {
      const int ranks = runtime_.communicator().size();
      return io_seconds(static_cast<double>(read) * ranks, static_cast<double>(written) * ranks,
                        drive_);
    };
    row.bound = std::max(forward, io(traffic.forward_read, traffic.forward_written)) +
                std::max(backward, io(traffic.backward_read, traffic.backward_written));
    row.balanced = std::max(forward + backward, io(traffic.read(), traffic.written()));
  }

  Runtime& runtime_;
  const Options& options_;
  Model model_;
  TrainerOptions dram_, auto_, none_;
  DeviceProfile drive_;
  std::vector<Row> rows_;
};

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
    app.add_option("--train", options.train, "patterns of parameters; all others are frozen");
    app.add_option("--sequences", options.sequences)->capture_default_str();
    app.add_option("--sequence_length", options.sequence_length)->capture_default_str();
    app.add_option("--micro_batches", options.micro_batches)->capture_default_str();
    app.add_option("--steps", options.steps)->capture_default_str();
    app.add_option("--io_seconds", options.io_seconds)->capture_default_str();
    app.add_option("--delay_ms", options.delay_ms)->capture_default_str();
    app.add_option("--rows", options.rows, "of none, delayed (after none), auto, dram")
        ->check(CLI::IsMember({"none", "delayed", "auto", "dram"}))
        ->capture_default_str();
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    return strata::Benchmark(runtime, options).run();
  });
}
