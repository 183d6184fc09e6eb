#include "launch/cli/train_options.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launch/cli/flags.h"
#include "launch/cli/pattern_flags.h"
#include "launch/cli/plan_options.h"
#include "launch/cli/sequence_length.h"
#include "tests/support/files.h"
#include "tests/support/parsed_options.h"
#include "tests/support/temporary_directory.h"

namespace strata::cli {
namespace {

TrainOptions train(std::vector<std::string> arguments) {
  for (const char* word : {"--model", "m", "--data", "d", "--out", "o"})
    arguments.emplace_back(word);
  return test::parse(add_train_flags, arguments);
}

TEST(TrainOptions, HasTheDefaultsOfTheHuggingFaceTrainer) {
  const TrainOptions options = train({});
  EXPECT_EQ(options.per_device_train_batch_size, 8);
  EXPECT_EQ(options.gradient_accumulation_steps, 1);
  EXPECT_EQ(options.learning_rate, 5e-5);
  EXPECT_EQ(options.lr_scheduler_type, ScheduleKind::kLinear);
  EXPECT_EQ(options.num_train_epochs, 3.0);
  EXPECT_EQ(options.max_steps, -1);
  EXPECT_EQ(options.max_grad_norm, 1.0);
  EXPECT_EQ(options.seed, 42);
  EXPECT_EQ(options.placement.stage, 3);
  EXPECT_EQ(options.placement.compute, Dtype::kBf16);
  EXPECT_FALSE(options.placement.dram.has_value());
}

TEST(TrainOptions, ReportsToTensorBoardUnlessToldNot) {
  EXPECT_TRUE(train({}).tensorboard);
  EXPECT_TRUE(train({"--report_to", "tensorboard"}).tensorboard);
  EXPECT_FALSE(train({"--report_to", "none"}).tensorboard);
  EXPECT_REFUSED(train({"--report_to", "wandb"}), "--report_to: \"wandb\" is not one of");
  EXPECT_FALSE(train({}).report);
  EXPECT_TRUE(train({"--report"}).report);
}

TEST(TrainOptions, TakesDropoutFromTheConfigOrAsARate) {
  EXPECT_FALSE(train({}).dropout.from_config);
  EXPECT_EQ(train({}).dropout.rate, 0.0);
  EXPECT_TRUE(train({"--dropout", "from-config"}).dropout.from_config);
  EXPECT_EQ(train({"--dropout", "0.25"}).dropout.rate, 0.25);
  EXPECT_EQ(test::parse(add_plan_flags, {"--dropout", "0.25"}).dropout.rate, 0.25);
  for (const char* value : {"1", "-0.1", "nan", "0.1x", "", "config", "0.99999999999"}) {
    EXPECT_REFUSED(train({"--dropout", value}), "--dropout: \"" + std::string(value));
  }
}

TEST(Settings, AreEveryFlagWithWhatItWasGivenOrItsDefault) {
  CLI::App app;
  TrainOptions options;
  add_train_flags(app, options);
  app.parse("--model m --data a b --out o --max_steps 3 --trace");
  std::map<std::string, std::string> settings;
  for (const auto& [flag, value] : settings_of(app)) settings[flag] = value;
  EXPECT_EQ(settings.at("--model"), "m");
  EXPECT_EQ(settings.at("--data"), "a b");
  EXPECT_EQ(settings.at("--max_steps"), "3");
  EXPECT_EQ(settings.at("--trace"), "true");
  EXPECT_EQ(settings.at("--overwrite"), "false");
  EXPECT_EQ(settings.at("--seed"), "42");
  EXPECT_EQ(settings.at("--optim"), "adamw");
  EXPECT_EQ(settings.at("--eval_data"), "");
  EXPECT_FALSE(settings.contains("--help"));
}

TEST(TrainOptions, ReadsEveryFlag) {
  const TrainOptions options = train({"--per_device_train_batch_size",
                                      "2",
                                      "--gradient_accumulation_steps=4",
                                      "--sequence_length",
                                      "256",
                                      "--learning_rate",
                                      "1e-3",
                                      "--lr_scheduler_type",
                                      "cosine",
                                      "--warmup_steps",
                                      "20",
                                      "--max_steps",
                                      "200",
                                      "--num_train_epochs",
                                      "1.5",
                                      "--weight_decay",
                                      "0.1",
                                      "--max_grad_norm",
                                      "0.5",
                                      "--seed",
                                      "7",
                                      "--eval_data",
                                      "e",
                                      "f",
                                      "--eval_steps",
                                      "50",
                                      "--overwrite",
                                      "--compute",
                                      "fp32",
                                      "--residency",
                                      "none",
                                      "--update",
                                      "fused",
                                      "--clip",
                                      "previous",
                                      "--place",
                                      "gradients=swap,hi=dram",
                                      "--activations",
                                      "swap",
                                      "--io-engine",
                                      "threads",
                                      "--stage",
                                      "2",
                                      "--bind",
                                      "keep",
                                      "--swap",
                                      "a,b",
                                      "--dram",
                                      "1.5GiB",
                                      "--trace",
                                      "--no_progress",
                                      "--optim",
                                      "sgd",
                                      "--momentum",
                                      "0.9",
                                      "--train_batch_size",
                                      "16"});
  EXPECT_EQ(options.per_device_train_batch_size, 2);
  EXPECT_EQ(options.gradient_accumulation_steps, 4);
  EXPECT_EQ(options.sequence_length, 256);
  EXPECT_EQ(options.learning_rate, 1e-3);
  EXPECT_EQ(options.lr_scheduler_type, ScheduleKind::kCosine);
  EXPECT_EQ(options.warmup_steps, 20);
  EXPECT_EQ(options.max_steps, 200);
  EXPECT_EQ(options.num_train_epochs, 1.5);
  EXPECT_EQ(options.weight_decay, 0.1);
  EXPECT_EQ(options.max_grad_norm, 0.5);
  EXPECT_EQ(options.seed, 7);
  EXPECT_EQ(options.eval_data.size(), 2u);
  EXPECT_EQ(options.eval_steps, 50);
  EXPECT_TRUE(options.overwrite && options.trace && options.no_progress);
  EXPECT_EQ(options.clip, ClipChoice::kPrevious);
  EXPECT_EQ(options.optim, OptimizerKind::kSgd);
  EXPECT_EQ(options.momentum, 0.9);
  EXPECT_EQ(options.bind, BindMode::kKeep);
  EXPECT_EQ(options.train_batch_size, 16);
  const PlacementOptions& placement = options.placement;
  EXPECT_EQ(placement.compute, Dtype::kF32);
  EXPECT_EQ(placement.residency, ResidencyChoice::kNone);
  EXPECT_EQ(placement.update, UpdateChoice::kFused);
  EXPECT_EQ(placement.place, (Placement{.hi = Place::kDram, .gradients = Place::kSwap}));
  EXPECT_EQ(placement.activations, Place::kSwap);
  EXPECT_EQ(placement.io_engine, IoEngineOptions::Kind::kThreads);
  EXPECT_EQ(placement.stage, 2);
  EXPECT_EQ(placement.swap, (std::vector<std::filesystem::path>{"a", "b"}));
  EXPECT_EQ(placement.dram.value(), 1610612736u);
}

TEST(TrainOptions, TakesSeveralPatternsOfParameters) {
  const TrainOptions options =
      train({"--freeze", "*.attn.*", "wte.weight", "--train", "*ln*", "--place", "weights=dram"});
  EXPECT_EQ(options.patterns.freeze, (std::vector<std::string>{"*.attn.*", "wte.weight"}));
  EXPECT_EQ(options.patterns.train, std::vector<std::string>{"*ln*"});
  EXPECT_EQ(options.placement.place, (Placement{.weights = Place::kDram}));
  EXPECT_EQ(pattern_flags(options.patterns), " --freeze '*.attn.*' 'wte.weight' --train '*ln*'");
  EXPECT_EQ(pattern_flags({}), "");
}

TEST(TrainOptions, RefusesValuesThatAreNoneAndSaysWhatWouldBe) {
  EXPECT_REFUSED(train({"--max_steps", "many"}), "--max_steps: \"many\" is not a whole number");
  EXPECT_REFUSED(train({"--max_steps", "1.5"}), "--max_steps: \"1.5\"");
  EXPECT_REFUSED(train({"--per_device_train_batch_size", "0"}), "from 1 to");
  EXPECT_REFUSED(train({"--learning_rate", "nan"}), "--learning_rate: \"nan\" is not a number");
  EXPECT_REFUSED(train({"--learning_rate", "-1"}), "at least 0");
  EXPECT_REFUSED(train({"--compute", "fp8"}), "--compute: \"fp8\" is not one of bf16, fp32, fp16");
  EXPECT_REFUSED(train({"--hysteresis", "0"}), "--hysteresis: \"0\" is not a whole number");
  EXPECT_REFUSED(train({"--lr_scheduler_type", "cosin"}), "did you mean cosine?");
  EXPECT_REFUSED(train({"--optim", "adagrad"}), "is not one of adamw, adam, lion, sgd");
  EXPECT_REFUSED(train({"--stage", "4"}), "--stage: \"4\" is not a whole number from 0 to 3");
  EXPECT_REFUSED(train({"--dram", "much"}), "--dram: \"much\" is not a size");
  EXPECT_REFUSED(train({"--place", "gradient=swap"}), "did you mean gradients?");
  EXPECT_REFUSED(train({"--place", "m=nvme"}), "--place: \"m=nvme\"");
  EXPECT_REFUSED(train({"--place", "swap"}), "--place: \"swap\"");
  EXPECT_THROW(train({"--swap"}), CLI::ParseError);
  EXPECT_THROW(test::parse(add_train_flags, {"--data", "d", "--out", "o"}), CLI::RequiredError);
}

/// Options that pass check(), to be spoilt one at a time.
struct GoodTrain {
  test::TemporaryDirectory directory;
  TrainOptions options;

  GoodTrain() {
    test::write_file(directory / "text", "some text");
    options.model = directory.path();
    options.data.files = {directory / "text"};
    options.out = directory / "new/out";
    options.placement.swap = {directory.path()};
  }
};

TEST(TrainOptions, ChecksFilesBeforeAnyWorkAndChangesNothing) {
  GoodTrain good;
  EXPECT_NO_THROW(check(good.options));
  EXPECT_FALSE(std::filesystem::exists(good.directory / "new"));
  TrainOptions bad = good.options;
  bad.data.files.push_back(good.directory / "missing");
  EXPECT_REFUSED(check(bad), "missing does not exist");
  bad.data.files = {good.directory.path()};
  EXPECT_REFUSED(check(bad), "is a directory; name the files in it");
  bad = good.options;
  bad.model = good.directory / "nothing";
  EXPECT_REFUSED(check(bad), "--model: ");
  bad = good.options;
  bad.placement.swap.push_back(good.directory / "nowhere");
  EXPECT_REFUSED(check(bad), "--swap: ");
}

TEST(TrainOptions, KeepsAnOutputThatHoldsSomethingUnlessToldOtherwise) {
  GoodTrain good;
  test::write_file(good.directory / "full/file", "precious");
  good.options.out = good.directory / "full";
  EXPECT_REFUSED(check(good.options), "is not empty; choose another directory or add --overwrite");
  good.options.overwrite = true;
  EXPECT_NO_THROW(check(good.options));
  good.options.out = good.directory / "text";
  EXPECT_REFUSED(check(good.options), "is not a directory");
}

TEST(TrainOptions, RefusesFlagsThatContradictEachOther) {
  const GoodTrain good;
  TrainOptions bad = good.options;
  bad.max_steps = 0;
  EXPECT_REFUSED(check(bad), "--max_steps: 0");
  bad = good.options;
  bad.max_steps = 10;
  bad.warmup_steps = 11;
  EXPECT_REFUSED(check(bad), "--warmup_steps: 11 is more than --max_steps 10");
  bad = good.options;
  bad.placement.update = UpdateChoice::kFused;
  EXPECT_REFUSED(check(bad), "--clip previous");
  bad.clip = ClipChoice::kNone;
  EXPECT_NO_THROW(check(bad));
  bad = good.options;
  bad.placement.swap.clear();
  EXPECT_NO_THROW(check(bad));
  bad.placement.place.gradients = Place::kSwap;
  EXPECT_REFUSED(check(bad), "there is no --swap");
}

TEST(TrainOptions, MultipliesBatchSizesLikeDeepSpeed) {
  TrainOptions options;
  options.per_device_train_batch_size = 2;
  options.gradient_accumulation_steps = 4;
  TrainOptions settled = options;
  EXPECT_NO_THROW(settle_batch(settled, 3));
  EXPECT_EQ(settled.train_batch_size, 24);
  EXPECT_NO_THROW(settle_batch(settled, 3));
  EXPECT_REFUSED(settle_batch(settled, 2), "2 x --gradient_accumulation_steps 4 x 2 ranks = 16");
  options.train_batch_size = 24;
  options.config.derive_micro_batch = true;
  settle_batch(options, 2);
  EXPECT_EQ(options.per_device_train_batch_size, 3);
}

TEST(ChosenSequenceLength, IsBoundedByLearnedPositionsOnly) {
  const ModelConfig learned = preset("gpt2-124m");  // 1024 positions
  EXPECT_EQ(chosen_sequence_length(0, learned), 1024);
  EXPECT_EQ(chosen_sequence_length(1024, learned), 1024);
  EXPECT_REFUSED(chosen_sequence_length(1025, learned),
                 "--sequence_length: 1025 is more than the model's 1024 positions");
  ModelConfig rotary = preset("llama-26m");
  rotary.max_positions = 512;
  EXPECT_EQ(chosen_sequence_length(0, rotary), 512);
  EXPECT_EQ(chosen_sequence_length(1025, rotary), 1025);
}

}  // namespace
}  // namespace strata::cli
