#include "launch/deepspeed_config.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"

namespace strata {
namespace {

DeepSpeedConfig read(std::string_view text) { return parse_deepspeed_config(text, "ds.json"); }

/// "key=values" of the setting of a flag, values joined; "default" ones say so, "auto" has none.
std::string of(const DeepSpeedConfig& config, std::string_view flag) {
  std::string text;
  for (const ConfigSetting& setting : config.settings) {
    if (setting.flag != flag) continue;
    text += (text.empty() ? "" : "; ") + setting.key + (setting.by_default ? "(default)=" : "=");
    if (setting.automatic()) text += "auto";
    for (std::size_t i = 0; i < setting.values.size(); ++i) {
      text += (i == 0 ? "" : ",") + setting.values[i];
    }
  }
  return text;
}

std::string refusal(std::string_view text) {
  try {
    read(text);
  } catch (const UsageError& error) {
    return error.what();
  } catch (const FormatError& error) {
    return std::string("format: ") + error.what();
  }
  return "nothing was refused";
}

TEST(DeepSpeedConfig, SetsWhatFlagsSet) {
  const DeepSpeedConfig config = read(R"({
    "train_batch_size": 32, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4,
    "gradient_clipping": 0.5, "steps_per_print": 1e2,
    "bf16": {"enabled": true},
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "betas": [0.8, 0.95], "eps": 1e-6,
                                              "weight_decay": 0.1}},
    "zero_optimization": {"stage": 3,
      "offload_param": {"device": "cpu"},
      "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"}},
    "aio": {"block_size": 2097152, "queue_depth": 16},
    "activation_checkpointing": {"cpu_checkpointing": true}})");
  EXPECT_EQ(of(config, "--train_batch_size"), "train_batch_size=32");
  EXPECT_EQ(of(config, "--per_device_train_batch_size"), "train_micro_batch_size_per_gpu=2");
  EXPECT_EQ(of(config, "--gradient_accumulation_steps"), "gradient_accumulation_steps=4");
  EXPECT_EQ(of(config, "--max_grad_norm"), "gradient_clipping=0.5");
  EXPECT_EQ(of(config, "--logging_steps"), "steps_per_print=100");
  EXPECT_EQ(of(config, "--compute"), "bf16.enabled=bf16");
  EXPECT_EQ(of(config, "--optim"), "optimizer.type=adamw");
  EXPECT_EQ(of(config, "--learning_rate"), "optimizer.params.lr=3e-05");
  EXPECT_EQ(of(config, "--adam_beta1"), "optimizer.params.betas=0.8");
  EXPECT_EQ(of(config, "--adam_beta2"), "optimizer.params.betas=0.95");
  EXPECT_EQ(of(config, "--adam_epsilon"), "optimizer.params.eps=1e-06");
  EXPECT_EQ(of(config, "--weight_decay"), "optimizer.params.weight_decay=0.1");
  EXPECT_EQ(of(config, "--stage"), "zero_optimization.stage=3");
  EXPECT_EQ(of(config, "--swap"), "zero_optimization.offload_optimizer.nvme_path=/nvme");
  EXPECT_EQ(of(config, "--place"),
            "zero_optimization.offload_param.device=hi=dram; "
            "zero_optimization.offload_optimizer.device=lo=swap,m=swap,v=swap");
  EXPECT_EQ(of(config, "--activations"), "activation_checkpointing.cpu_checkpointing=dram");
  EXPECT_EQ(config.extras.io_block_bytes.value(), 2097152u);
  EXPECT_EQ(config.extras.io_queue_depth.value(), 16u);
  EXPECT_TRUE(config.extras.decay_everywhere);
  EXPECT_TRUE(config.ignored.empty());
}

TEST(DeepSpeedConfig, ReadsTheScalingOfLosses) {
  DeepSpeedConfig config = read(R"({"fp16": {"enabled": true, "loss_scale": 0,
      "initial_scale_power": 20, "loss_scale_window": 1e2, "hysteresis": 4,
      "consecutive_hysteresis": true, "min_loss_scale": 2}})");
  EXPECT_EQ(of(config, "--compute"), "fp16.enabled=fp16");
  EXPECT_EQ(of(config, "--loss_scale"), "fp16.loss_scale=0");
  EXPECT_EQ(of(config, "--initial_scale_power"), "fp16.initial_scale_power=20");
  EXPECT_EQ(of(config, "--loss_scale_window"), "fp16.loss_scale_window=100");
  EXPECT_EQ(of(config, "--hysteresis"), "fp16.hysteresis=4");
  EXPECT_EQ(of(config, "--consecutive_hysteresis"), "fp16.consecutive_hysteresis=true");
  EXPECT_EQ(of(config, "--min_loss_scale"), "fp16.min_loss_scale=2");
  EXPECT_TRUE(config.ignored.empty());
  config = read(R"({"fp16": {"enabled": false, "loss_scale": 128}, "bf16": {"enabled": true}})");
  EXPECT_EQ(of(config, "--compute"), "bf16.enabled=bf16");
  EXPECT_EQ(of(config, "--loss_scale"), "") << "nothing is scaled";
}

TEST(DeepSpeedConfig, LeavesAutoToTheFlags) {
  const DeepSpeedConfig config = read(R"({
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto",
                                              "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": "auto",
      "warmup_max_lr": "auto", "warmup_num_steps": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto",
                          "stage3_gather_16bit_weights_on_model_save": true}})");
  for (const char* flag :
       {"--train_batch_size", "--per_device_train_batch_size", "--gradient_accumulation_steps",
        "--max_grad_norm", "--compute", "--learning_rate", "--adam_beta1", "--adam_beta2",
        "--adam_epsilon", "--weight_decay", "--warmup_steps"}) {
    EXPECT_TRUE(of(config, flag).ends_with("=auto")) << flag << " " << of(config, flag);
  }
  EXPECT_EQ(of(config, "--lr_scheduler_type"), "scheduler.type=WarmupDecayLR");
  EXPECT_EQ(config.extras.schedule_steps, 0);
  EXPECT_EQ(config.ignored, (std::vector<std::string>{"zero_optimization.reduce_bucket_size"}));
}

TEST(DeepSpeedConfig, HasTheDefaultsOfDeepSpeed) {
  DeepSpeedConfig config = read(R"({"train_micro_batch_size_per_gpu": 1})");
  EXPECT_EQ(of(config, "--compute"), "bf16.enabled(default)=fp32");
  EXPECT_EQ(of(config, "--stage"), "zero_optimization.stage(default)=0");
  EXPECT_EQ(of(config, "--max_grad_norm"), "gradient_clipping(default)=1");
  EXPECT_EQ(of(config, "--learning_rate"), "") << "without an optimizer flags decide";
  EXPECT_FALSE(config.extras.io_queue_depth.has_value());
  EXPECT_FALSE(config.extras.decay_everywhere);
  config = read(R"({"optimizer": {"type": "Lion"}, "scheduler": {"type": "WarmupLR"}, "aio": {},
                    "bf16": {"enabled": false}})");
  EXPECT_EQ(of(config, "--learning_rate"), "optimizer.params.lr(default)=0.001");
  EXPECT_EQ(of(config, "--warmup_steps"), "scheduler.params.warmup_num_steps(default)=1000");
  EXPECT_EQ(of(config, "--compute"), "bf16.enabled=fp32");
  EXPECT_EQ(config.extras.io_block_bytes.value(), 1048576u);
  EXPECT_EQ(config.extras.io_queue_depth.value(), 8u);
}

TEST(DeepSpeedConfig, ReadsItsSchedules) {
  DeepSpeedConfig config = read(R"({
    "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 1e-6, "warmup_max_lr": 1e-3,
                                                 "warmup_num_steps": 10,
                                                 "warmup_type": "linear"}}})");
  EXPECT_EQ(of(config, "--learning_rate"), "scheduler.params.warmup_max_lr=0.001");
  EXPECT_EQ(of(config, "--momentum"), "optimizer.params.momentum=0.9");
  EXPECT_EQ(of(config, "--warmup_steps"), "scheduler.params.warmup_num_steps=10");
  EXPECT_EQ(config.extras.warmup_start, 1e-6);
  EXPECT_EQ(config.extras.warmup_shape, WarmupShape::kLinear);
  config = read(R"({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 500}}})");
  EXPECT_EQ(of(config, "--learning_rate"), "scheduler.params.warmup_max_lr(default)=0.001");
  EXPECT_EQ(config.extras.schedule_steps, 500);
  config = read(R"({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 500,
                  "warmup_min_ratio": 0.25, "cos_min_ratio": 0.5}}})");
  EXPECT_EQ(of(config, "--learning_rate"), "optimizer.params.lr=0.0001");
  EXPECT_EQ(config.extras.warmup_start_ratio, 0.25);
  EXPECT_EQ(config.extras.cosine_end, 0.5);
}

TEST(DeepSpeedConfig, TakesAdamForAdamWUnlessItSaysOtherwise) {
  EXPECT_EQ(of(read(R"({"optimizer": {"type": "Adam"}})"), "--optim"), "optimizer.type=adamw");
  EXPECT_EQ(
      of(read(R"({"optimizer": {"type": "Adam", "params": {"adam_w_mode": false}}})"), "--optim"),
      "optimizer.type=adam");
  EXPECT_EQ(
      of(read(R"({"optimizer": {"type": "AdamW", "params": {"adam_w_mode": false}}})"), "--optim"),
      "optimizer.type=adamw");
}

TEST(DeepSpeedConfig, WarnsOfKeysWithoutEffectAndOfWhatIsOn) {
  const DeepSpeedConfig config = read(R"({
    "zero_optimization": {"stage": 2, "overlap_comm": true, "offload_param": {"device": "none",
                          "pin_memory": true}},
    "wall_clock_breakdown": false, "tensorboard": {"enabled": false, "job_name": "x"},
    "wandb": {"enabled": true}, "flops_profiler": {"enabled": false, "detailed": true},
    "fp16": {"enabled": false, "hysteresis": 2}, "aio": {"thread_count": 1},
    "amp": {"enabled": false}, "gradient_allreduce_op": "mean"})");
  std::vector<std::string> ignored = config.ignored;
  std::ranges::sort(ignored);
  EXPECT_EQ(ignored, (std::vector<std::string>{"aio.thread_count", "wandb",
                                               "zero_optimization.offload_param.pin_memory",
                                               "zero_optimization.overlap_comm"}));
  EXPECT_EQ(of(config, "--place"), "");
}

TEST(DeepSpeedConfig, ReadsAnOwnSectionOfFlags) {
  const DeepSpeedConfig config = read(
      R"({"strata": {"dram": "4GiB", "swap": ["/a", "/b"], "max-steps": 20, "trace": true,
                     "learning_rate": 0.001, "seed": null}})");
  EXPECT_EQ(config.settings.size(), 5u) << "and none of DeepSpeed's defaults";
  EXPECT_EQ(of(config, "--dram"), "strata.dram=4GiB");
  EXPECT_EQ(of(config, "--swap"), "strata.swap=/a,/b");
  EXPECT_EQ(of(config, "--max-steps"), "strata.max-steps=20");
  EXPECT_EQ(of(config, "--trace"), "strata.trace=true");
  EXPECT_EQ(of(config, "--learning_rate"), "strata.learning_rate=0.001");
}

TEST(DeepSpeedConfig, RefusesByFileKeyValueAndRemedy) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"train_batch_sise": 8})",
       "ds.json: train_batch_sise: there is no such key; did you mean train_batch_size?"},
      {R"({"zero_optimization": {"stage3_max_live_parameter": 1}})",
       "ds.json: zero_optimization.stage3_max_live_parameter: there is no such key; did you mean "
       "stage3_max_live_parameters?"},
      {R"({"zero_optimization": {"offload_param": {"nvme_pat": "/x"}}})",
       "zero_optimization.offload_param.nvme_pat: there is no such key; did you mean nvme_path?"},
      {R"({"zero_optimisation": {"stage": 3}})",
       "ds.json: zero_optimisation: there is no such key; did you mean zero_optimization?"},
      {R"({"bf_16": {"enabled": true}})", "bf_16: there is no such key; did you mean bf16?"},
      {R"({"lr": 1e-4})", "lr: there is no such key; did you mean optimizer.params.lr?"},
      {R"({"offload_param": {"device": "cpu"}})", "did you mean zero_optimization.offload_param?"},
      {R"({"frobnicate": 1})", "frobnicate: there is no such key; remove it"},
      {R"({"optimizer": {"type": "AdamW", "params": {"learning_rate": 1}}})",
       "optimizer.params.learning_rate: there is no such key"},
      {R"({"optimizer": {"type": "Lion", "params": {"eps": 1}}})",
       "optimizer.params.eps: there is no such key; remove it"},
      {R"({"optimizer": {"type": "Lamb"}})",
       "optimizer.type: \"Lamb\" is not an optimizer that exists here: Adam, AdamW, Lion or SGD"},
      {R"({"optimizer": {"params": {}}})", "optimizer: it has no \"type\""},
      {R"({"optimizer": {"type": "AdamW", "params": {"max_grad_norm": 1}}})", "gradient_clipping"},
      {R"({"optimizer": {"type": "AdamW", "params": {"betas": [0.9]}}})", "two numbers"},
      {R"({"scheduler": {"type": "OneCycle"}})", "scheduler.type: \"OneCycle\" is not a schedule"},
      {R"({"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 0}}})",
       "scheduler.params.warmup_num_steps: 0 is not a whole number of at least 1"},
      {R"({"scheduler": {"type": "WarmupLR", "params": {"warmup_type": "sine"}}})",
       "\"sine\" is not \"log\" or \"linear\""},
      {R"({"zero_optimization": {"stage": 4}})",
       "zero_optimization.stage: 4 is not a whole number from 0 to 3"},
      {R"({"zero_optimization": {"stage": "3"}})", "\"3\" is not a number"},
      {R"({"zero_optimization": true})", "zero_optimization: true is not an object {...}"},
      {R"({"zero_optimization": {"offload_optimizer": {"device": "gpu"}}})",
       "\"gpu\" is not \"none\", \"cpu\" or \"nvme\""},
      {R"({"zero_optimization": {"zero_quantized_weights": true}})", "does not exist here"},
      {R"({"bf16": {"enabled": true, "bf16_optimizer_states": true}})", "does not exist here"},
      {R"({"amp": {"enabled": true}})", "amp: {\"enabled\":true} asks for what does not exist"},
      {R"({"gradient_allreduce_op": "sum"})", "use \"mean\""},
      {R"({"fp16": {"enabled": true}, "bf16": {"enabled": true}})", "choose one of them"},
      {R"({"fp16": {"enabled": true, "hysteresis": 0}})",
       "fp16.hysteresis: 0 is not a whole number of at least 1"},
      {R"({"fp16": {"enabled": true, "consecutive_hysteresis": 1}})",
       "fp16.consecutive_hysteresis: 1 is not true or false"},
      {R"({"fp16": {"enabled": true, "auto_cast": true}})", "fp16.auto_cast"},
      {R"({"bf16": {"enabled": 1}})", "bf16.enabled: 1 is not true or false"},
      {R"({"train_batch_size": 1.5})", "train_batch_size: 1.5 is not a whole number of at least 1"},
      {R"({"train_batch_size": -8})", "train_batch_size: -8"},
      {R"({"gradient_clipping": -1})", "gradient_clipping: -1 is not a number of at least 0"},
      {R"({"aio": {"block_size": 5000}})", "5000 is not a multiple of 4096"},
      {R"({"strata": {"dram": {}}})", "strata.dram: {} is not what a flag takes"},
      {R"({"strata": [1]})", "strata: [1] is not an object {...}"},
      {R"({"bf16": {}, "bf16": {}})", "format: ds.json: the key \"bf16\" occurs twice"},
      {R"([1])", "format: ds.json: not a JSON object"},
      {R"({"a": )", "format: ds.json: not valid JSON"},
  };
  for (const auto& [text, words] : cases) {
    EXPECT_NE(refusal(text).find(words), std::string::npos) << text << "\n" << refusal(text);
  }
}

BatchSizes batch(std::int64_t train, std::int64_t micro, std::int64_t accumulation, int ranks) {
  return derive_batch({train, micro, accumulation}, ranks);
}

TEST(DeepSpeedConfig, DerivesTheSizesOfABatchAsDeepSpeed) {
  EXPECT_EQ(batch(32, 2, 0, 4).accumulation, 4);
  EXPECT_EQ(batch(32, 0, 4, 4).micro, 2);
  EXPECT_EQ(batch(0, 2, 4, 4).train, 32);
  EXPECT_EQ(batch(32, 0, 0, 4).micro, 8);
  EXPECT_EQ(batch(32, 0, 0, 4).accumulation, 1);
  EXPECT_EQ(batch(0, 3, 0, 4).train, 12);
  EXPECT_NO_THROW(batch(32, 2, 4, 4));
  EXPECT_THROW(batch(0, 0, 4, 4), UsageError);
  EXPECT_THROW(batch(33, 2, 4, 4), UsageError);
  EXPECT_THROW(batch(33, 2, 0, 4), UsageError);
  EXPECT_THROW(batch(2, 0, 0, 4), UsageError) << "a micro-batch of nothing";
  EXPECT_THROW(batch(32, 64, 0, 1), UsageError);
  try {
    batch(24, 2, 4, 2);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("2 x --gradient_accumulation_steps 4 x 2 ranks = 16"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace strata
