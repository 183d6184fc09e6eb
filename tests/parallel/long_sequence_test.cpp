// Sequences whose activations do not fit, and budgets that hold: measured on whole processes.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::train;
using test::TrainingResult;

constexpr int kSteps = 2;

TrainerOptions long_options() {
  TrainerOptions options = test::tiny_options(Dtype::kBf16);
  options.shape = {.micro_batches = 1, .sequences = 1, .sequence_length = 8192};
  return options;
}
ModelConfig long_model() {
  ModelConfig config = test::tiny_llama();
  config.hidden = config.head_size = 32;
  config.heads = config.kv_heads = 1;
  config.layers = 5;
  config.max_positions = 8192;
  return config;
}

TEST(LongSequences, ActivationsOnSwapGiveTheSameBitsAndCostTwoBytesPerTokenLayerAndChannel) {
  const test::TemporaryDirectory directory;
  TrainerOptions options = long_options();
  options.placement.swap = {{directory.path(), 1}};
  options.placement.residency = false;
  options.placement.prefetch_depth = 0;  // no bytes under way between two steps
  options.placement.activations = Place::kDram;
  const TrainingResult want = train(long_model(), options, kSteps);
  options.placement.activations = Place::kSwap;
  options.placement.dram_bytes = want.plan.dram() - want.plan.boundaries / 2;
  const TrainingResult got = train(long_model(), options, kSteps);
  ASSERT_TRUE(got.plan.boundaries_on_swap);
  EXPECT_LE(got.plan.dram(), *options.placement.dram_bytes);
  EXPECT_EQ(got.losses, want.losses);
  EXPECT_EQ(got.norms, want.norms);
  EXPECT_EQ(got.parameters, want.parameters);

  // Outputs of the embedding and of all layers but the last, which is turned around in memory.
  const double expected = 2.0 * 32 * 5 * 8192;
  EXPECT_EQ(static_cast<double>(got.plan.swap_boundaries), expected);
  for (int step = 0; step < kSteps; ++step) {
    const auto s = static_cast<std::size_t>(step);
    const auto more = [&](std::uint64_t with, std::uint64_t without) {
      return static_cast<double>(with) - static_cast<double>(without);
    };
    EXPECT_NEAR(more(got.reports[s].swap_bytes_written, want.reports[s].swap_bytes_written),
                expected, 0.02 * expected)
        << "step " << step;
    EXPECT_NEAR(more(got.reports[s].swap_bytes_read, want.reports[s].swap_bytes_read), expected,
                0.02 * expected)
        << "step " << step;
  }
}

/// Runs `body` in a child process; what the kernel says its memory was at the highest, in bytes.
std::uint64_t peak_memory_of(const std::function<void()>& body) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  EXPECT_GE(child, 0);
  if (child == 0) {
    try {
      body();
      std::ifstream status("/proc/self/status");
      for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmHWM:", 0) != 0) continue;
        const std::uint64_t bytes = std::stoull(line.substr(6)) << 10;
        if (write(ends[1], &bytes, sizeof bytes) == sizeof bytes) _exit(0);
      }
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(1);
  }
  close(ends[1]);
  std::uint64_t bytes = 0;
  EXPECT_EQ(read(ends[0], &bytes, sizeof bytes), static_cast<ssize_t>(sizeof bytes));
  close(ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child failed";
  return bytes;
}

TEST(LongSequences, AProcessStaysWithinItsBudgetAndThreeHundredMebibytes) {
  for (const std::int64_t hidden : {256, 768}) {
    ModelConfig config = test::tiny_llama();
    config.vocab_size = 4000;
    config.hidden = hidden;
    config.head_size = hidden / config.heads;
    config.intermediate = 4 * hidden;
    config.layers = 8;
    const test::TemporaryDirectory directory;
    TrainerOptions options = test::tiny_options(Dtype::kBf16);
    options.shape = {.micro_batches = 2, .sequences = 1, .sequence_length = 64};
    test::stream_everything(options, directory.path());
    const Model model = make_transformer(config);
    const Partition partition(model, 1);
    const Plan plan(model, UpdateTiming::kLazy);
    const std::vector<BlockCost> costs = measure_blocks(model, options.shape, Dtype::kBf16);
    const std::uint64_t least = smallest_dram({.model = model,
                                               .partition = partition,
                                               .plan = plan,
                                               .costs = costs,
                                               .shape = options.shape,
                                               .state = {.m = true, .v = true},
                                               .placement = options.placement});
    options.placement.dram_bytes = least + (16 << 20);
    const std::uint64_t state = 12 * static_cast<std::uint64_t>(model.parameter_count());
    const std::uint64_t peak = peak_memory_of([&] {
      const auto device = make_cpu_device(1);
      const auto self = make_self_communicator();
      Log log(1);
      Trainer trainer({*device, *self, log}, model, options, random_parameters(1));
      for (int step = 0; step < 2; ++step) {
        trainer.step(test::tiny_batch(options.shape, config.vocab_size, step, 0, 1));
      }
      trainer.flush();
    });
    EXPECT_LE(peak, *options.placement.dram_bytes + (300 << 20)) << "hidden " << hidden;
    std::printf("hidden %lld: state %llu MiB, budget %llu MiB, peak %llu MiB\n",
                static_cast<long long>(hidden), static_cast<unsigned long long>(state >> 20),
                static_cast<unsigned long long>(*options.placement.dram_bytes >> 20),
                static_cast<unsigned long long>(peak >> 20));
  }
}

}  // namespace
}  // namespace strata
