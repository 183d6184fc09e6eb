#include <cmath>
#include <stdexcept>

#include "core/error.h"
#include "launch/deepspeed_config.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_deepspeed(std::string_view input) try {
  const DeepSpeedConfig config = parse_deepspeed_config(input, "input");
  for (const ConfigSetting& setting : config.settings) {
    if (!setting.flag.empty() && !setting.flag.starts_with("--")) {
      throw std::logic_error("a setting is neither a flag nor a note");
    }
    if (setting.key.empty()) throw std::logic_error("a setting has no place in the file");
    if (setting.by_default && setting.automatic()) throw std::logic_error("a default says nothing");
  }
  const ConfigExtras& extras = config.extras;
  for (const double number : {extras.warmup_start, extras.warmup_start_ratio, extras.cosine_end}) {
    if (!std::isfinite(number) || number < 0) throw std::logic_error("a schedule is out of range");
  }
  if (extras.schedule_steps < 0) throw std::logic_error("a schedule has a negative length");
} catch (const FormatError&) {
} catch (const UsageError&) {  // JSON, but not what a configuration may say
}

}  // namespace strata::test
