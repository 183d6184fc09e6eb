#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "launch/deepspeed_config.h"
#include "parallel/trainer_options.h"

namespace CLI {
class App;
}

namespace strata::cli {

/// What `--config FILE` decided. Settings that flags have are in the command's options already.
struct ConfigChoices {
  std::filesystem::path file;           ///< empty: there was none
  std::vector<ConfigSetting> settings;  ///< "auto" replaced by what the flag says
  std::vector<std::string> ignored;     ///< keys that are known and have no effect here
  ConfigExtras extras;
  bool derive_micro_batch = false;  ///< from train_batch_size, see settle_batch()
  bool derive_accumulation = false;

  /// Whether the file says what `flag` is.
  bool sets(std::string_view flag) const;
};

/// Declares --config, which reads a file and gives what it says to the other flags of `app`, as if
/// they had been given. A flag that was given and says something else is a UsageError that names
/// both. Flags that `app` has not are checked as those of `strata train`. `choices` must outlive
/// the parsing.
void add_config_flag(CLI::App& app, ConfigChoices& choices);

/// Derives the sizes of a batch that were left to it, which become settings of `choices`, and
/// checks the product where train_batch_size is given. @throws UsageError
void settle_batch(ConfigChoices& choices, BatchSizes& batch, int ranks);

/// Puts what no flag says into `trainer`, whose schedule is complete otherwise.
void apply_extras(const ConfigChoices& choices, TrainerOptions& trainer);

/// How the file was understood, for people: a line for each setting. Empty without a file.
std::string format_config(const ConfigChoices& choices);
/// The warning about keys that have no effect. Empty if there are none.
std::string ignored_warning(const ConfigChoices& choices);

}  // namespace strata::cli
