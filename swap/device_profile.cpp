#include "swap/device_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxDepth = 4;

double bandwidth(const json& object, const char* key) {
  const double value = object.at(key).get<double>();
  if (!(value > 0) || !std::isfinite(value)) {
    throw Error(fmt::format("{} is not a bandwidth", key));
  }
  return value;
}

DeviceProfile profile_from(const json& object) {
  return {.read = bandwidth(object, "read"),
          .write = bandwidth(object, "write"),
          .mixed_read = bandwidth(object, "mixed_read"),
          .mixed_write = bandwidth(object, "mixed_write"),
          .block_bytes = object.at("block_bytes").get<std::size_t>(),
          .queue_depth = object.at("queue_depth").get<unsigned>()};
}

json to_json(const DeviceProfile& profile) {
  return {{"read", profile.read},
          {"write", profile.write},
          {"mixed_read", profile.mixed_read},
          {"mixed_write", profile.mixed_write},
          {"block_bytes", profile.block_bytes},
          {"queue_depth", profile.queue_depth}};
}

}  // namespace

double io_seconds(double read_bytes, double write_bytes, const DeviceProfile& profile) {
  const auto seconds = [](double bytes, double per_second) {
    expects(bytes == 0 || per_second > 0, "a drive's time needs its measured bandwidth");
    return bytes == 0 ? 0.0 : bytes / per_second;
  };
  const double reading = seconds(read_bytes, profile.read);
  const double writing = seconds(write_bytes, profile.write);
  if (read_bytes == 0 || write_bytes == 0) return std::max(reading, writing);
  return std::max({reading, writing,
                   seconds(read_bytes + write_bytes, profile.mixed_read + profile.mixed_write)});
}

std::string device_key(const DirectoryFacts& directory) {
  return directory.block_device.empty() ? directory.path : directory.block_device;
}

fs::path device_profile_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return fs::path(cache) / "strata/devices.json";
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return fs::path(home) / ".cache/strata/devices.json";
  throw UsageError(
      "measured drives are kept under $XDG_CACHE_HOME or $HOME/.cache, and neither is "
      "set; set one of them");
}

DeviceProfiles load_device_profiles(const fs::path& file) {
  DeviceProfiles profiles;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return profiles;
  try {
    const json root =
        parse_json_object(read_text_file(file, kMaxFileBytes), file.string(), kMaxDepth);
    for (const auto& [device, object] : root.items()) {
      profiles.by_device[device] = profile_from(object);
    }
  } catch (const std::exception& cause) {
    profiles.by_device.clear();
    profiles.warning = fmt::format(
        "{}: the measured drives could not be read ({}); `strata bench io` makes it anew",
        file.string(), cause.what());
  }
  return profiles;
}

void save_device_profile(const fs::path& file, const std::string& device,
                         const DeviceProfile& profile) {
  json root = json::object();
  for (const auto& [known, old] : load_device_profiles(file).by_device) root[known] = to_json(old);
  root[device] = to_json(profile);
  write_json_file(file, root);
}

}  // namespace strata
