// Trainer::read_beside(): what it reads, and that the run does not notice.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <tuple>

#include "core/error.h"
#include "optimizer/split.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::tiny_batch;
using Values = std::map<std::string, std::vector<float>>;

std::vector<Parameter> all_parameters(const Model& model) {
  std::vector<Parameter> all;
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) all.push_back(spec.get());
  }
  return all;
}

Values values_of(Trainer& trainer) {
  Values values;
  for (const Parameter parameter : all_parameters(trainer.model())) {
    values[parameter->name] = trainer.read(parameter->name);
  }
  return values;
}

/// Puts pieces together, and fails where one is missing or out of place.
class Collector {
 public:
  ParameterSink sink() {
    return [this](Parameter parameter, std::int64_t begin, std::span<const float> piece) {
      std::vector<float>& to = values_[parameter->name];
      ASSERT_EQ(static_cast<std::int64_t>(to.size()), begin) << parameter->name;
      to.insert(to.end(), piece.begin(), piece.end());
    };
  }
  std::function<void()> finish() {
    return [this] { finished_ = true; };
  }
  const Values& values() const { return values_; }
  bool finished() const { return finished_; }

 private:
  Values values_;
  std::atomic<bool> finished_ = false;
};

struct Placed {
  std::string name;
  int ranks = 1;
  bool streams = false;
  UpdateTiming update = UpdateTiming::kLazy;
  Dtype compute = Dtype::kF32;
  int stage = 3;
};

class ReadBeside : public testing::TestWithParam<Placed> {
 protected:
  void SetUp() override {
    options_ = test::tiny_options(GetParam().compute);
    options_.placement.update = GetParam().update;
    options_.placement.stage = GetParam().stage;
    if (GetParam().update == UpdateTiming::kFused) options_.clip = Clip::kNone;
    if (GetParam().streams) test::stream_everything(options_, directory_.path());
  }
  /// Steps [from, to) of a run; returns their losses.
  std::vector<double> steps(Trainer& trainer, const Communicator& world, int from, int to) const {
    std::vector<double> losses;
    for (int step = from; step < to; ++step) {
      losses.push_back(trainer
                           .step(tiny_batch(options_.shape, model_.vocabulary_size(), step,
                                            world.rank(), world.size()))
                           .loss);
    }
    return losses;
  }
  void on_ranks(const std::function<void(Trainer&, Communicator&)>& body) {
    test::run_on_threads(GetParam().ranks, [&](Communicator& world) {
      const std::unique_ptr<Device> device = make_cpu_device(1);
      Log log(1);
      Trainer trainer({*device, world, log}, model_, options_, random_parameters(5));
      body(trainer, world);
    });
  }

  test::TemporaryDirectory directory_;
  Model model_ = make_transformer(test::tiny_gpt2(true));
  TrainerOptions options_;
};

TEST_P(ReadBeside, ReadsTheStateOfTheLastStepWhileTheNextOneRuns) {
  Values want_after_two, want_after_four;
  std::vector<double> want_losses;
  on_ranks([&](Trainer& trainer, Communicator& world) {
    const std::vector<double> first = steps(trainer, world, 0, 2);
    const Values after_two = values_of(trainer);
    const std::vector<double> second = steps(trainer, world, 2, 4);
    const Values after_four = values_of(trainer);
    if (world.rank() != 0) return;
    want_after_two = after_two;
    want_after_four = after_four;
    want_losses = second;
  });
  on_ranks([&](Trainer& trainer, Communicator& world) {
    steps(trainer, world, 0, 2);
    Collector collector;
    trainer.read_beside(all_parameters(model_), Dtype::kF32, collector.sink(), collector.finish());
    EXPECT_TRUE(trainer.reading());
    EXPECT_EQ(steps(trainer, world, 2, 4), want_losses);
    trainer.finish_reading();
    EXPECT_FALSE(trainer.reading());
    EXPECT_EQ(values_of(trainer), want_after_four);
    EXPECT_EQ(collector.finished(), world.rank() == 0);
    if (world.rank() == 0) {
      EXPECT_EQ(collector.values(), want_after_two);
    } else {
      EXPECT_TRUE(collector.values().empty());
    }
  });
}

TEST_P(ReadBeside, ReadsWithoutAStepAndAfterAnEvaluation) {
  on_ranks([&](Trainer& trainer, Communicator& world) {
    steps(trainer, world, 0, 1);
    Collector at_once, evaluated;
    trainer.read_beside(all_parameters(model_), Dtype::kF32, at_once.sink(), at_once.finish());
    trainer.finish_reading();
    const Values after_one = values_of(trainer);
    steps(trainer, world, 1, 2);
    const Batch batch =
        tiny_batch(options_.shape, model_.vocabulary_size(), 9, world.rank(), world.size());
    trainer.evaluate(batch);
    trainer.read_beside(all_parameters(model_), Dtype::kF32, evaluated.sink(), evaluated.finish());
    trainer.evaluate(batch);
    const Values after_two = values_of(trainer);
    steps(trainer, world, 2, 3);
    trainer.finish_reading();
    if (world.rank() != 0) return;
    EXPECT_EQ(at_once.values(), after_one);
    EXPECT_EQ(evaluated.values(), after_two);
    EXPECT_NE(after_one, after_two);
  });
}

TEST_P(ReadBeside, ReadsTheUpperHalfAlone) {
  on_ranks([&](Trainer& trainer, Communicator& world) {
    steps(trainer, world, 0, 2);
    Collector collector;
    trainer.read_beside(all_parameters(model_), Dtype::kBf16, collector.sink(), collector.finish());
    trainer.finish_reading();
    Values want = values_of(trainer);
    for (auto& [name, values] : want) {
      for (float& value : values) value = join(split(value).hi, 0);
    }
    if (world.rank() != 0) return;
    EXPECT_EQ(collector.values(), want);
  });
}

TEST_P(ReadBeside, WhatTheSinkThrowsEndsTheRun) {
  const auto fails = [&](bool in_sink) {
    on_ranks([&](Trainer& trainer, Communicator& world) {
      steps(trainer, world, 0, 1);
      trainer.read_beside(
          all_parameters(model_), Dtype::kF32,
          [&](Parameter, std::int64_t, std::span<const float>) {
            if (in_sink) throw IoError("cannot write", "model.safetensors", 0, ENOSPC);
          },
          [&] { throw IoError("cannot rename", "model.safetensors", 0, ENOSPC); });
      steps(trainer, world, 1, 3);
      trainer.finish_reading();
      world.barrier();
    });
  };
  EXPECT_THROW(fails(true), IoError);
  EXPECT_THROW(fails(false), IoError);
}

INSTANTIATE_TEST_SUITE_P(
    Placements, ReadBeside,
    testing::Values(Placed{"Dram"}, Placed{"Swap", 1, true}, Placed{"TwoRanks", 2},
                    Placed{"ThreeRanksSwap", 3, true},
                    Placed{"Bf16Swap", 2, true, UpdateTiming::kLazy, Dtype::kBf16},
                    Placed{"Fused", 1, false, UpdateTiming::kFused},
                    Placed{"FusedSwapTwoRanks", 2, true, UpdateTiming::kFused},
                    Placed{"StageTwo", 2, true, UpdateTiming::kLazy, Dtype::kBf16, 2},
                    Placed{"StageZero", 2, false, UpdateTiming::kLazy, Dtype::kF32, 0}),
    [](const auto& placed) { return placed.param.name; });

}  // namespace
}  // namespace strata
