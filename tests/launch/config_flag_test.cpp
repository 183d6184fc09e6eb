#include "launch/cli/config_flag.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launch/cli/plan_options.h"
#include "launch/cli/train_options.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata::cli {
namespace {

class ConfigFlag : public testing::Test {
 protected:
  /// What train makes of the file and of more arguments; in place, since flags refer to it.
  const TrainOptions& train(const std::string& json, std::vector<std::string> arguments = {}) {
    for (const char* word : {"--model", "m", "--data", "d", "--out", "o"}) {
      arguments.emplace_back(word);
    }
    return parse(add_train_flags, train_, json, std::move(arguments));
  }
  const PlanOptions& plan(const std::string& json, std::vector<std::string> arguments = {}) {
    return parse(add_plan_flags, plan_, json, std::move(arguments));
  }

  template <typename Options>
  const Options& parse(void (*add)(CLI::App&, Options&), Options& options, const std::string& json,
                       std::vector<std::string> arguments) {
    test::write_file(directory_ / "ds.json", json);
    arguments.insert(arguments.begin(), {"--config", (directory_ / "ds.json").string()});
    options = {};
    CLI::App app;
    add(app, options);
    std::ranges::reverse(arguments);
    app.parse(arguments);
    if constexpr (std::is_same_v<Options, TrainOptions>) keep_settings(app, options);
    return options;
  }

  void expect_refused(const std::string& json, const std::vector<std::string>& arguments,
                      const std::string& words) {
    try {
      train(json, arguments);
      ADD_FAILURE() << "nothing was refused: " << json;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("ds.json: "), std::string::npos) << error.what();
    }
  }

  /// What run.json has of the flag or key; nothing if there is no such thing.
  std::string kept(const std::string& name) const {
    for (const auto& [flag, value] : train_.settings) {
      if (flag == name) return value;
    }
    return "nothing";
  }

  test::TemporaryDirectory directory_;
  TrainOptions train_;
  PlanOptions plan_;
};

TEST_F(ConfigFlag, GivesWhatTheFileSaysToTheFlags) {
  const TrainOptions& options = train(R"({
    "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4,
    "gradient_clipping": 0.5, "bf16": {"enabled": true},
    "optimizer": {"type": "Lion", "params": {"lr": 3e-5, "betas": [0.8, 0.95],
                                             "weight_decay": 0.1}},
    "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 300,
                  "warmup_min_ratio": 0.5, "warmup_num_steps": 5}},
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme",
                                                            "nvme_path": "/nvme"}},
    "aio": {"queue_depth": 16},
    "strata": {"dram": "1.5GiB", "max-steps": 20, "trace": true, "eval_data": ["a", "b"]}})");
  EXPECT_EQ(options.per_device_train_batch_size, 2);
  EXPECT_EQ(options.gradient_accumulation_steps, 4);
  EXPECT_EQ(options.max_grad_norm, 0.5);
  EXPECT_EQ(options.optim, OptimizerKind::kLion);
  EXPECT_EQ(options.learning_rate, 3e-5);
  EXPECT_EQ(options.adam_beta2, 0.95);
  EXPECT_EQ(options.weight_decay, 0.1);
  EXPECT_EQ(options.lr_scheduler_type, ScheduleKind::kWarmupCosineLr);
  EXPECT_EQ(options.warmup_steps, 5);
  EXPECT_EQ(options.placement.compute, Dtype::kBf16);
  EXPECT_EQ(options.placement.stage, 2);
  EXPECT_EQ(options.placement.place,
            (Placement{.lo = Place::kSwap, .m = Place::kSwap, .v = Place::kSwap}));
  EXPECT_EQ(options.placement.swap, (std::vector<std::filesystem::path>{"/nvme"}));
  EXPECT_EQ(options.placement.dram.value(), 1610612736u);
  EXPECT_EQ(options.max_steps, 20);
  EXPECT_TRUE(options.trace);
  EXPECT_EQ(options.eval_data.size(), 2u);

  TrainerOptions trainer;
  trainer.schedule.learning_rate = 2.0;
  trainer.schedule.total_steps = 20;
  apply_extras(options.config, trainer);
  EXPECT_TRUE(trainer.decay_everywhere);
  EXPECT_EQ(trainer.schedule.warmup_start, 1.0);
  EXPECT_EQ(trainer.schedule.total_steps, 300);
  EXPECT_EQ(trainer.io.queue_depth, 16u);

  const std::string text = format_config(options.config);
  for (const char* words : {"ds.json as understood", "optimizer.params.lr", "--learning_rate 3e-05",
                            "--place lo=swap,m=swap,v=swap", "scheduler.params.warmup_min_ratio",
                            "weight decay on every parameter", "--eval_data a,b"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
  }
}

TEST_F(ConfigFlag, GivesLossScalingToTheFlags) {
  const TrainOptions& options = train(R"({"train_batch_size": 8, "fp16": {"enabled": true,
      "loss_scale": 0, "initial_scale_power": 12, "loss_scale_window": 500, "hysteresis": 3,
      "consecutive_hysteresis": true, "min_loss_scale": 4}})");
  EXPECT_EQ(options.placement.compute, Dtype::kF16);
  EXPECT_EQ(options.loss_scale.loss_scale, 0);
  EXPECT_EQ(options.loss_scale.initial_scale_power, 12);
  EXPECT_EQ(options.loss_scale.window, 500);
  EXPECT_EQ(options.loss_scale.hysteresis, 3);
  EXPECT_TRUE(options.loss_scale.consecutive_hysteresis);
  EXPECT_EQ(options.loss_scale.min_loss_scale, 4);
  train(R"({"fp16": {"enabled": "auto", "loss_scale": "auto", "consecutive_hysteresis": false}})",
        {"--compute", "fp16", "--loss_scale", "64"});
  EXPECT_EQ(train_.placement.compute, Dtype::kF16);
  EXPECT_EQ(train_.loss_scale.loss_scale, 64);
  EXPECT_FALSE(train_.loss_scale.consecutive_hysteresis);
  expect_refused(R"({"fp16": {"enabled": true, "loss_scale": 128}})", {"--loss_scale", "64"},
                 "fp16.loss_scale: 128 contradicts --loss_scale 64");
}

TEST_F(ConfigFlag, GivesDefaultsOfDeepSpeedOnlyToFlagsThatWereNotGiven) {
  EXPECT_EQ(train(R"({"train_batch_size": 8})").placement.compute, Dtype::kF32);
  EXPECT_EQ(train_.placement.stage, 0);
  const TrainOptions& options =
      train(R"({"train_batch_size": 8})", {"--compute", "bf16", "--stage", "3"});
  EXPECT_EQ(options.placement.compute, Dtype::kBf16);
  EXPECT_EQ(options.placement.stage, 3);
  EXPECT_EQ(train(R"({"strata": {"max_steps": 3}})").placement.stage, 3);
  EXPECT_FALSE(train_.config.extras.decay_everywhere);
}

TEST_F(ConfigFlag, TakesAutoFromTheFlags) {
  const char* json = R"({"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto", "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}})";
  const TrainOptions& options =
      train(json, {"--learning_rate", "2e-4", "--per_device_train_batch_size", "2"});
  EXPECT_EQ(options.learning_rate, 2e-4);
  EXPECT_EQ(options.placement.compute, Dtype::kBf16);
  EXPECT_FALSE(options.config.derive_micro_batch);
  EXPECT_NE(format_config(options.config).find("--learning_rate 2e-4"), std::string::npos);
  train(json);
  EXPECT_EQ(train_.learning_rate, 5e-5);
  settle_batch(train_, 3);
  EXPECT_NE(format_config(train_.config).find("--train_batch_size 24"), std::string::npos);
  EXPECT_NE(format_config(train_.config).find("--learning_rate 5e-05"), std::string::npos);
}

TEST_F(ConfigFlag, DerivesWhatIsMissingFromTheTrainBatchSize) {
  TrainOptions options = train(R"({"train_batch_size": 32})");
  settle_batch(options, 4);
  EXPECT_EQ(options.per_device_train_batch_size, 8);
  EXPECT_EQ(options.gradient_accumulation_steps, 1);
  EXPECT_NE(format_config(options.config).find("--per_device_train_batch_size 8"),
            std::string::npos);
  options = train(R"({"train_batch_size": 32})", {"--per_device_train_batch_size", "2"});
  settle_batch(options, 4);
  EXPECT_EQ(options.gradient_accumulation_steps, 4);
  options = train(R"({"train_batch_size": 32, "gradient_accumulation_steps": 2})");
  settle_batch(options, 4);
  EXPECT_EQ(options.per_device_train_batch_size, 4);
  options = train(R"({"train_batch_size": 33, "train_micro_batch_size_per_gpu": 4})");
  EXPECT_THROW(settle_batch(options, 4), UsageError);
}

TEST_F(ConfigFlag, KeepsWhatFlagsAndFileSayTogether) {
  train(R"({
    "train_batch_size": 32, "gradient_clipping": 0.5, "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "betas": [0.8, 0.95]}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 1e-6, "warmup_num_steps": 5}},
    "zero_optimization": {"offload_param": {"device": "cpu"},
                          "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"}},
    "aio": {"queue_depth": 16},
    "strata": {"max-steps": 20, "trace": true, "eval_data": ["a", "b"]}})",
        {"--seed", "7", "--place", "gradients=swap", "--per_device_train_batch_size", "2"});
  settle_batch(train_, 4);
  const std::string file = directory_ / "ds.json";
  const std::pair<const char*, const char*> kept_settings[] = {
      {"--model", "m"},
      {"--config", file.c_str()},
      {"--seed", "7"},
      {"--train_batch_size", "32"},
      {"--per_device_train_batch_size", "2"},
      {"--gradient_accumulation_steps", "4"},
      {"--max_grad_norm", "0.5"},
      {"--compute", "bf16"},
      {"--optim", "adamw"},
      {"--learning_rate", "3e-05"},
      {"--adam_beta1", "0.8"},
      {"--adam_beta2", "0.95"},
      {"--adam_epsilon", "1e-08"},
      {"--lr_scheduler_type", "WarmupLR"},
      {"--warmup_steps", "5"},
      {"--stage", "0"},
      {"--swap", "/nvme"},
      {"--place", "gradients=swap hi=dram lo=swap m=swap v=swap"},
      {"--max_steps", "20"},
      {"--trace", "true"},
      {"--eval_data", "a b"},
      {"scheduler.params.warmup_min_lr", "1e-06"},
      {"aio.queue_depth", "16"},
      {"aio.block_size", "nothing"},
  };
  for (const auto& [name, value] : kept_settings) EXPECT_EQ(kept(name), value) << name;
}

TEST_F(ConfigFlag, SendsTensorBoardWhereTheFileSays) {
  EXPECT_EQ(train(R"({"train_batch_size": 8})").events_directory(), "o");
  EXPECT_EQ(train(R"({"tensorboard": {"enabled": false, "job_name": "x"}})").events_directory(),
            "");
  EXPECT_EQ(train(R"({"tensorboard": {"job_name": "x"}})").events_directory(), "")
      << "off, as in DeepSpeed";
  EXPECT_EQ(train(R"({"tensorboard": {"job_name": "x"}})", {"--report_to", "tensorboard"})
                .events_directory(),
            "o");
  EXPECT_EQ(train(R"({"tensorboard": {"enabled": true}})").events_directory(), "o");
  EXPECT_EQ(train(R"({"tensorboard": {"enabled": true, "output_path": "logs/",
                                      "job_name": "run-3"}})")
                .events_directory(),
            "logs/run-3");
  EXPECT_EQ(train(R"({"tensorboard": {"enabled": true, "output_path": "logs"}})",
                  {"--logging_dir", "logs/DeepSpeedJobName"})
                .events_directory(),
            "logs/DeepSpeedJobName");
  EXPECT_EQ(kept("--logging_dir"), "logs/DeepSpeedJobName");
  EXPECT_EQ(
      train(R"({"tensorboard": {"enabled": "auto", "job_name": "run"}})", {"--report_to", "none"})
          .events_directory(),
      "");
  EXPECT_EQ(train(R"({"tensorboard": {"enabled": "auto", "job_name": "run"}})").events_directory(),
            "run");
  EXPECT_TRUE(ignored_warning(train_.config).empty());
  expect_refused(R"({"tensorboard": {"enabled": true}})", {"--report_to", "none"},
                 "tensorboard.enabled: true contradicts --report_to none");
  expect_refused(R"({"tensorboard": {"enabled": true, "output_path": "a"}})",
                 {"--logging_dir", "b"}, "contradicts --logging_dir b");
  expect_refused(R"({"tensorboard": {"enabled": true, "output_path": 3}})", {},
                 "tensorboard.output_path: 3 is not a string");
  expect_refused(R"({"tensorboard": true})", {}, "tensorboard: true is not an object");
}

TEST_F(ConfigFlag, TakesEqualValuesHoweverTheyAreWritten) {
  const TrainOptions& options = train(
      R"({"optimizer": {"type": "AdamW", "params": {"lr": 0.0001}},
          "zero_optimization": {"offload_optimizer": {"device": "cpu"}},
          "strata": {"dram": "1GiB", "swap": ["/a", "/b"]}})",
      {"--learning_rate", "1e-4", "--dram", "1024MiB", "--swap", "/a,/b", "--optim", "adamw",
       "--place", "gradients=swap,m=dram"});
  EXPECT_EQ(options.learning_rate, 1e-4);
  EXPECT_EQ(
      options.placement.place,
      (Placement{
          .lo = Place::kDram, .m = Place::kDram, .v = Place::kDram, .gradients = Place::kSwap}));
  EXPECT_EQ(options.placement.swap.size(), 2u);
}

TEST_F(ConfigFlag, RefusesAContradictionNamingBoth) {
  expect_refused(
      R"({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})", {"--learning_rate", "2e-4"},
      "optimizer.params.lr: 0.0001 contradicts --learning_rate 2e-4 on the command line; "
      "remove one of them, or write \"auto\" in the file");
  expect_refused(R"({"bf16": {"enabled": false}})", {"--compute", "bf16"},
                 "bf16.enabled: false contradicts --compute bf16");
  expect_refused(R"({"zero_optimization": {"offload_param": {"device": "nvme"}}})",
                 {"--place", "hi=dram"}, "contradicts --place hi=dram");
  expect_refused(R"({"zero_optimization": {"stage": 2}, "strata": {"stage": 3}})", {},
                 "zero_optimization.stage: 2 contradicts strata.stage, which means --stage 3");
  expect_refused(R"({"strata": {"trace": false}})", {"--trace"}, "strata.trace: false contradicts");
}

TEST_F(ConfigFlag, RefusesWhatAFlagWouldRefuseByKey) {
  expect_refused(R"({"strata": {"dramm": "1GiB"}})", {},
                 "strata.dramm: there is no flag --dramm; did you mean dram?");
  expect_refused(R"({"lerning_rate": 1e-4})", {},
                 "lerning_rate: there is no such key; did you mean strata.learning_rate?");
  expect_refused(R"({"strata": {"dram": "much"}})", {}, "strata.dram: --dram: \"much\"");
  expect_refused(R"({"strata": {"dram": ["1", "2"]}})", {}, "strata.dram: ");
  expect_refused(R"({"strata": {"config": "x"}})", {}, "there is no flag --config");
  expect_refused(R"({"train_micro_batch_size_per_gpu": 5000000})", {}, "from 1 to 1048576");
  CLI::App app;
  TrainOptions options;
  add_train_flags(app, options);
  std::vector<std::string> arguments{(directory_ / "missing.json").string(), "--config"};
  EXPECT_THROW(app.parse(arguments), UsageError);
}

TEST_F(ConfigFlag, PlanChecksWhatOnlyTrainHas) {
  const PlanOptions& options = plan(
      R"({"train_batch_size": 16, "bf16": {"enabled": true}, "zero_optimization": {"stage": 3},
          "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
          "strata": {"max_steps": 20}})",
      {"--preset", "gpt-162m"});
  EXPECT_EQ(options.optim, OptimizerKind::kSgd);
  EXPECT_EQ(options.momentum, 0.9);
  EXPECT_EQ(options.train_batch_size, 16);
  EXPECT_TRUE(options.config.derive_micro_batch);
  EXPECT_TRUE(options.config.sets("--max_steps"));
  EXPECT_THROW(plan(R"({"strata": {"max_steps": "many"}})"), UsageError);
  plan(R"({"train_batch_size": 16})", {"--preset", "gpt-162m", "--tokens", "1024"});
  EXPECT_THROW(check(plan_), UsageError);
}

}  // namespace
}  // namespace strata::cli
