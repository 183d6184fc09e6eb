#pragma once

// Internal: the keys of a DeepSpeed configuration. Not installed.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// What becomes of a key.
enum class KeyUse : std::uint8_t {
  kHonoured,
  kReplaced,  ///< tunes what the plan decides here, or has no meaning here: a warning
  kExtra,     ///< watches or reports: a warning when it is on
  kRefused,   ///< changes what is computed: an error when it is on
};

struct KnownKey {
  std::string_view name;
  KeyUse use = KeyUse::kReplaced;
  /// JSON of the value that turns it off. Empty: false, null, nothing, and "enabled": false do.
  std::string_view off = {};
};

/// The keys of the object at `path` ("" for the document, "zero_optimization.offload_param").
/// Empty: whatever is in there is not looked at.
std::span<const KnownKey> known_keys(std::string_view path);

/// The same of "optimizer.params" and "scheduler.params" for a type ("adam", "WarmupLR"). Empty: no
/// such type here.
std::span<const KnownKey> optimizer_keys(std::string_view lower_case_type);
std::span<const KnownKey> scheduler_keys(std::string_view type);

/// What somebody may have meant by `name` at `path`, which is none of `keys`: the nearest of these,
/// else the place of a key of that name in another section ("zero_optimization.stage"), else the
/// nearest of `flags` as a key of "strata". Empty: nothing like it.
std::string key_meant_by(std::string_view path, std::string_view name,
                         std::span<const KnownKey> keys, const std::vector<std::string>& flags);

}  // namespace strata
