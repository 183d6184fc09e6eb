#pragma once

// Internal: configuration files in DeepSpeed's JSON. Not installed.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optimizer/schedule.h"

namespace strata {

/// One thing that a configuration decides and a flag says too.
struct ConfigSetting {
  std::string key;                  ///< "optimizer.params.lr", or several, for people
  std::string shown;                ///< its value as JSON
  std::string flag;                 ///< "--learning_rate"; empty: there is none
  std::vector<std::string> values;  ///< as the flag takes them; empty: "auto", what the flag says
  bool by_default = false;          ///< not in the file but DeepSpeed's default: a flag goes first

  bool automatic() const noexcept { return !flag.empty() && values.empty(); }
};

/// What a configuration decides and no flag says.
struct ConfigExtras {
  bool decay_everywhere = false;  ///< it has an optimizer: weight decay on every parameter
  WarmupShape warmup_shape = WarmupShape::kLog;
  double warmup_start = 0.0;        ///< learning rate
  double warmup_start_ratio = 0.0;  ///< the same as a fraction of the peak; of WarmupCosineLR
  double cosine_end = 1e-4;         ///< likewise
  std::int64_t schedule_steps = 0;  ///< length of the schedule; 0: that of the run
  std::optional<std::size_t> io_block_bytes;
  std::optional<unsigned> io_queue_depth;
};

/// A configuration, read and checked as far as that goes without flags.
struct DeepSpeedConfig {
  std::vector<ConfigSetting> settings;
  ConfigExtras extras;
  std::vector<std::string> ignored;  ///< keys that are known and have no effect here
};

/// Reads DeepSpeed's keys with its meanings and defaults, Hugging Face's "auto", and a section
/// "strata" whose keys are long flags (their names are not checked here). `path` is for messages.
///
/// DeepSpeed's defaults hold where a file has any of its keys, but for optimizer and scheduler,
/// which it leaves to the program: without those sections flags decide.
/// @param flags names of flags ("learning_rate"), for messages about keys that are none
/// @throws FormatError if it is not JSON, UsageError for a key that is unknown (with the nearest
/// one), asks for what does not exist here, or has a value it cannot have; both start with `path`
DeepSpeedConfig parse_deepspeed_config(std::string_view text, const std::string& path,
                                       const std::vector<std::string>& flags = {});

/// The three sizes of a batch. 0: not given.
struct BatchSizes {
  std::int64_t train = 0;         ///< sequences of a step over all ranks
  std::int64_t micro = 0;         ///< sequences of a micro-batch of a rank
  std::int64_t accumulation = 0;  ///< micro-batches of a step
};

/// Derives what is not given, and checks the product, as DeepSpeed does
/// (_configure_train_batch_size).
/// @throws UsageError naming the three and the ranks; or if neither train nor micro is given
BatchSizes derive_batch(BatchSizes given, int ranks);

}  // namespace strata
