#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/parameter_patterns.h"
#include "core/model/dropout.h"
#include "launch/cli/config_flag.h"
#include "launch/cli/data_options.h"
#include "launch/cli/model_saver.h"
#include "launch/cli/placement_options.h"
#include "launch/core_binding.h"
#include "optimizer/loss_scale.h"
#include "optimizer/schedule.h"

namespace strata::cli {

enum class ClipChoice : std::uint8_t { kExact, kPrevious, kNone };

/// What `strata train` was asked for. Names and defaults are those of the Hugging Face Trainer.
struct TrainOptions {
  std::filesystem::path model;  ///< directory with config.json and safetensors
  DataFlags data;
  std::filesystem::path out;
  bool overwrite = false;

  std::int64_t per_device_train_batch_size = 8;  ///< sequences of a micro-batch of a rank
  std::int64_t gradient_accumulation_steps = 1;  ///< micro-batches of a step
  std::int64_t train_batch_size = 0;  ///< sequences of a step over all ranks; 0: the product
  std::int64_t sequence_length = 0;   ///< tokens; 0: the smaller of 1024 and what the model allows
  double num_train_epochs = 3.0;
  std::int64_t max_steps = -1;  ///< positive: overrides the epochs
  std::int64_t seed = 42;       ///< not negative

  double learning_rate = 5e-5;
  ScheduleKind lr_scheduler_type = ScheduleKind::kLinear;
  std::int64_t warmup_steps = 0;
  OptimizerKind optim = OptimizerKind::kAdamW;
  double adam_beta1 = 0.9;  ///< of Adam, AdamW and Lion
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double momentum = 0.0;  ///< SGD
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  ///< 0: no clipping
  ClipChoice clip = ClipChoice::kExact;
  LossScaleOptions loss_scale;  ///< of fp16

  DropoutChoice dropout;       ///< --dropout
  ParameterPatterns patterns;  ///< which parameters are trained; empty: all

  std::vector<std::filesystem::path> eval_data;  ///< empty: the last eval_fraction of the data
  double eval_fraction = 0.05;
  std::int64_t eval_steps = 0;     ///< 0: at the end only
  std::int64_t logging_steps = 1;  ///< between step lines; metrics.jsonl has every step

  SaveFlags save;

  bool tensorboard = true;            ///< --report_to
  std::filesystem::path logging_dir;  ///< of TensorBoard events; empty: out
  bool report = false;
  bool trace = false;
  bool no_progress = false;
  BindMode bind = BindMode::kAuto;
  PlacementOptions placement;
  ConfigChoices config;

  std::vector<std::pair<std::string, std::string>> settings;  ///< for run.json, see keep_settings()

  bool clips() const noexcept { return clip != ClipChoice::kNone && max_grad_norm > 0; }
  /// Where TensorBoard events go; empty: nowhere.
  std::filesystem::path events_directory() const {
    if (!tensorboard) return {};
    return logging_dir.empty() ? out : logging_dir;
  }
};

/// The rules by their names as flags.
std::vector<std::pair<std::string, OptimizerKind>> optimizer_choices();

/// Declares the flags; `options` must outlive the parsing.
void add_train_flags(CLI::App& app, TrainOptions& options);

/// Fills options.settings once `command`, which has the flags, is parsed: every flag as the command
/// line or the configuration has it, else its default, and by their keys what only the
/// configuration says.
void keep_settings(const CLI::App& command, TrainOptions& options);

/// Everything that can be refused without reading a model or data: files that are missing, an
/// output that holds something, flags that contradict each other. Changes nothing. @throws
/// UsageError
void check(const TrainOptions& options);

/// Makes per_device_train_batch_size x gradient_accumulation_steps x ranks what --train_batch_size
/// says, if it says anything: derives what a configuration left open, as DeepSpeed. Also in the
/// settings.
/// @throws UsageError with the product if it is another
void settle_batch(TrainOptions& options, int ranks);

}  // namespace strata::cli
