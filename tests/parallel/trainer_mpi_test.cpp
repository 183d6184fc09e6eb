// Processes that train together give the bits of as many threads, streaming through swap.
#include <gtest/gtest.h>

#include "parallel/mpi/mpi_communicator.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::TrainingResult;

constexpr int kSteps = 4;

class TrainerOverMpi : public testing::TestWithParam<MpiRoute> {
 protected:
  void expect_bits_of_threads(const ModelConfig& config, const TrainerOptions& options) {
    const Model model = make_transformer(config);
    const auto device = make_cpu_device(1);
    Log log(1);
    TrainingResult got;
    int ranks = 0;
    int rank = 0;
    {
      const auto communicator = make_mpi_communicator(GetParam());
      ranks = communicator->size();
      rank = communicator->rank();
      got = test::train_rank({*device, *communicator, log}, model, options, kSteps);
      communicator->barrier();
    }
    for (const StepReport& report : got.reports) EXPECT_GT(report.swap_bytes_read, 0u);
    if (rank != 0) return;
    const TrainingResult want = test::train(config, options, kSteps, ranks);
    EXPECT_EQ(got.losses, want.losses);
    EXPECT_EQ(got.norms, want.norms);
    EXPECT_EQ(got.parameters, want.parameters);
  }
  TrainerOptions streamed(Dtype compute) const {
    TrainerOptions options = test::tiny_options(compute);
    test::stream_everything(options, directory_.path());
    return options;
  }
  test::TemporaryDirectory directory_;
};

TEST_P(TrainerOverMpi, GivesTheBitsOfThreads) {
  expect_bits_of_threads(test::tiny_llama(), streamed(Dtype::kF32));
  expect_bits_of_threads(test::tiny_gpt2(true), streamed(Dtype::kBf16));
  expect_bits_of_threads(test::tiny_llama(), streamed(Dtype::kF16));
}

TEST_P(TrainerOverMpi, GivesTheBitsOfThreadsWithEverythingSpilled) {
  TrainerOptions options = streamed(Dtype::kBf16);
  options.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
  options.placement.activations = Place::kSwap;
  expect_bits_of_threads(test::tiny_llama(), options);
}

TEST_P(TrainerOverMpi, GivesTheBitsOfThreadsInOtherStages) {
  for (const int stage : {0, 2}) {
    TrainerOptions options = streamed(Dtype::kBf16);
    options.placement.stage = stage;
    expect_bits_of_threads(test::tiny_gpt2(true), options);
  }
}

INSTANTIATE_TEST_SUITE_P(Routes, TrainerOverMpi,
                         testing::Values(MpiRoute::kShared, MpiRoute::kMessages),
                         [](const auto& route) {
                           return route.param == MpiRoute::kShared ? "Shared" : "Messages";
                         });

}  // namespace
}  // namespace strata
