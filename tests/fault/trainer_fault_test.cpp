// What a trainer does when its drive is slow, unhelpful or broken.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "tests/support/decorated_engine.h"
#include "tests/support/delaying_io_engine.h"
#include "tests/support/faulty_io_engine.h"
#include "tests/support/hostile_io_engine.h"
#include "tests/support/same_bits.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::decorate;
using test::expect_same_bits;
using test::train;
using test::TrainingResult;

constexpr int kSteps = 3;

class TrainerFault : public testing::Test {
 protected:
  TrainerOptions streamed(Dtype compute = Dtype::kBf16) const {
    TrainerOptions options = test::tiny_options(compute);
    test::stream_everything(options, directory_.path());
    return options;
  }
  test::TemporaryDirectory directory_;
};

TEST_F(TrainerFault, AnEngineThatPromisesNoOrderGivesTheSameBits) {
  for (const Dtype compute : {Dtype::kF32, Dtype::kBf16}) {
    for (const bool spills : {false, true}) {
      for (const int ranks : {1, 2}) {
        TrainerOptions options = streamed(compute);
        options.placement.prefetch_depth = 5;
        const auto place = [&options](Section section) -> Place& {
          return options.placement.sections[static_cast<std::size_t>(section)];
        };
        if (spills) place(Section::kGradient) = options.placement.activations = Place::kSwap;
        const TrainingResult want = train(test::tiny_gpt2(true), options, kSteps, ranks);
        options.make_engine = decorate<test::HostileIoEngine>();
        expect_same_bits(train(test::tiny_gpt2(true), options, kSteps, ranks), want);
        // Weights in DRAM let updates run ahead of their visits.
        place(Section::kHi) = place(Section::kLo) = Place::kDram;
        expect_same_bits(train(test::tiny_gpt2(true), options, kSteps, ranks), want);
      }
    }
  }
}

TEST_F(TrainerFault, ASlowDriveGivesTheSameBits) {
  TrainerOptions options = streamed();
  const TrainingResult want = train(test::tiny_llama(), options, kSteps);
  options.make_engine = decorate<test::DelayingIoEngine>(std::chrono::milliseconds(2));
  expect_same_bits(train(test::tiny_llama(), options, kSteps), want);
}

/// Counts the requests of a clean run.
class CountingEngine final : public IoEngine {
 public:
  CountingEngine(IoEngine& real, std::atomic<std::int64_t>* count) : real_(real), count_(count) {}
  std::string name() const override { return "counting"; }
  IoFile open_file(int descriptor, std::string path) override {
    return real_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { real_.register_memory(memory); }
  IoCounters counters() const override { return real_.counters(); }
  Event submit(std::span<const IoRequest> requests) override {
    *count_ += static_cast<std::int64_t>(requests.size());
    return real_.submit(requests);
  }

 private:
  IoEngine& real_;
  std::atomic<std::int64_t>* count_;
};

TEST_F(TrainerFault, AFailedTransferEndsTheRunWithItsCauseWhereverItHappens) {
  for (const int ranks : {1, 2}) {
    for (const bool spills : {false, true}) {
      TrainerOptions options = streamed();
      if (spills) {
        options.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
        options.placement.activations = Place::kSwap;
      }
      std::atomic<std::int64_t> requests = 0;
      options.make_engine = decorate<CountingEngine>(&requests);
      train(test::tiny_llama(), options, 2, ranks);
      const std::int64_t per_rank = requests / ranks;
      ASSERT_GT(per_rank, 20);
      for (std::int64_t number = 0; number < per_rank; number += 7) {
        const int error = number % 2 == 0 ? EIO : ENOSPC;
        options.make_engine = decorate<test::FaultyIoEngine>(
            test::FaultyIoEngine::Fault{.request = number, .system_error = error});
        const auto begin = std::chrono::steady_clock::now();
        try {
          train(test::tiny_llama(), options, 2, ranks);
          ADD_FAILURE() << "request " << number << " of " << per_rank << " failed unnoticed";
        } catch (const IoError& failure) {
          EXPECT_EQ(failure.system_error(), error);
        }
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
      }
    }
  }
}

}  // namespace
}  // namespace strata
