// The trainer on a device whose memory the host cannot reach gives the bits of one it can.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/ops.h"
#include "tests/support/decorated_engine.h"
#include "tests/support/faulty_io_engine.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/same_bits.h"
#include "tests/support/separate_device.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::expect_same_bits;
using test::tiny_options;
using test::train;
using test::TrainingResult;

constexpr int kSteps = 4;

/// test::train() on CPUs whose memory the host cannot reach.
TrainingResult train_apart(const ModelConfig& config, const TrainerOptions& options, int steps,
                           int ranks = 1, const DropoutRates& dropout = {}) {
  TrainingResult result;
  const Model model = make_transformer(config, dropout);
  test::run_on_threads(ranks, [&](Communicator& world) {
    const std::unique_ptr<test::SeparateDevice> device = test::make_separate_device(1);
    const std::unique_ptr<Communicator> communicator =
        test::make_separate_communicator(world, *device);
    Log log(1);
    TrainingResult own = test::train_rank({*device, *communicator, log}, model, options, steps);
    if (world.rank() == 0) result = std::move(own);
  });
  return result;
}

TEST(SeparateDeviceDeathTest, TheHostCannotTouchItsMemory) {
  const auto device = test::make_separate_device(1);
  const Buffer buffer = device->allocate(4096);
  EXPECT_DEATH(*static_cast<volatile std::byte*>(buffer.data()) = std::byte{1}, "");
}

TEST(SeparateDevice, CopiesBothWaysAndRefusesHostOperands) {
  const auto device = test::make_separate_device(1);
  const auto stream = device->make_stream();
  const Buffer buffer = device->allocate(8192);
  const TensorView on_device = buffer.view(Dtype::kF32, {2, 3});
  std::vector<float> values{1, 2, 3, 4, 5, 6};
  const TensorView on_host(values.data(), Dtype::kF32, {2, 3});
  device->copy(on_host, on_device, *stream);
  device->ops().add(on_device, on_device, on_device, *stream);
  device->copy(on_device, on_host, *stream);
  stream->synchronize();
  EXPECT_EQ(values, (std::vector<float>{2, 4, 6, 8, 10, 12}));
  EXPECT_THROW(device->ops().add(on_host, on_device, on_device, *stream), Error);
  EXPECT_THROW(device->ops().fill_zero(on_host, *stream), Error);
}

class TrainerOnSeparateDevice : public testing::TestWithParam<Dtype> {
 protected:
  TrainerOptions streamed() const {
    TrainerOptions options = tiny_options(GetParam());
    test::stream_everything(options, directory_.path());
    return options;
  }
  test::TemporaryDirectory directory_;
};

TEST_P(TrainerOnSeparateDevice, GivesTheSameBits) {
  for (const ModelConfig& config : {test::tiny_llama(), test::tiny_gpt2(true)}) {
    for (const int ranks : {1, 2}) {
      SCOPED_TRACE(config.family + ", ranks " + std::to_string(ranks));
      const TrainingResult want = train(config, tiny_options(GetParam()), kSteps, ranks);
      expect_same_bits(train_apart(config, tiny_options(GetParam()), kSteps, ranks), want);
      expect_same_bits(train_apart(config, streamed(), kSteps, ranks), want);
      TrainerOptions spilled = streamed();
      spilled.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
      spilled.placement.activations = Place::kSwap;
      expect_same_bits(train_apart(config, spilled, kSteps, ranks), want);
      TrainerOptions weights_stay = streamed();
      for (const Section section : {Section::kHi, Section::kLo}) {
        weights_stay.placement.sections[static_cast<std::size_t>(section)] = Place::kDram;
      }
      expect_same_bits(train_apart(config, weights_stay, kSteps, ranks), want);
    }
  }
}

TEST_P(TrainerOnSeparateDevice, GivesTheSameBitsUnderDropout) {
  constexpr DropoutRates kRates{.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f};
  const Model model = make_transformer(test::tiny_gpt2(true), kRates);
  const TrainingResult want = train(model, tiny_options(GetParam()), kSteps);
  expect_same_bits(train_apart(test::tiny_gpt2(true), streamed(), kSteps, 1, kRates), want);
}

TEST_P(TrainerOnSeparateDevice, EveryStageAndTimingGivesTheSameBits) {
  TrainerOptions options = streamed();
  options.clip = Clip::kNone;
  for (const int stage : {0, 2, 3}) {
    for (const UpdateTiming timing : {UpdateTiming::kLazy, UpdateTiming::kFused}) {
      if (timing == UpdateTiming::kFused && GetParam() == Dtype::kF16) continue;  // is refused
      options.placement.stage = stage;
      options.placement.update = timing;
      const TrainingResult want = train(test::tiny_llama(), options, kSteps, 2);
      expect_same_bits(train_apart(test::tiny_llama(), options, kSteps, 2), want);
    }
  }
}

TEST_P(TrainerOnSeparateDevice, ABlockLargerThanTheOthersFindsRoomInTheStagingMemory) {
  // Layers of between half and all of the head's size leave gaps that do not hold the head.
  ModelConfig config = test::tiny_llama();
  config.vocab_size = 700;
  TrainerOptions options = streamed();
  const TrainingResult want = train(config, options, 2);
  for (const int depth : {0, 1, 2, 5}) {
    options.placement.prefetch_depth = depth;
    expect_same_bits(train_apart(config, options, 2), want);
  }
}

TEST_P(TrainerOnSeparateDevice, AFailedTransferEndsTheRunWithItsCause) {
  TrainerOptions options = streamed();
  options.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
  options.placement.activations = Place::kSwap;
  for (std::int64_t number = 0; number < 200; number += 9) {
    options.make_engine = test::decorate<test::FaultyIoEngine>(
        test::FaultyIoEngine::Fault{.request = number, .system_error = EIO});
    EXPECT_THROW(train_apart(test::tiny_llama(), options, 3), IoError) << number;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TrainerOnSeparateDevice,
                         testing::Values(Dtype::kF32, Dtype::kBf16, Dtype::kF16),
                         [](const auto& compute) { return std::string(name(compute.param)); });

}  // namespace
}  // namespace strata
