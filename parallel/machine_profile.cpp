#include "parallel/machine_profile.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "swap/device_profile.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = 1 << 16;
constexpr int kMaxDepth = 2;

constexpr std::array<std::pair<const char*, double MachineProfile::*>, 11> kFigures = {{
    {"products_bf16", &MachineProfile::products_bf16},
    {"products_fp32", &MachineProfile::products_fp32},
    {"products_int8", &MachineProfile::products_int8},
    {"products_int4", &MachineProfile::products_int4},
    {"blocks_bf16", &MachineProfile::blocks_bf16},
    {"blocks_fp32", &MachineProfile::blocks_fp32},
    {"updates", &MachineProfile::updates},
    {"memory", &MachineProfile::memory},
    {"memory_read", &MachineProfile::memory_read},
    {"gather", &MachineProfile::gather},
    {"reduce", &MachineProfile::reduce},
}};

}  // namespace

std::filesystem::path machine_profile_path() {
  return device_profile_path().replace_filename("machine.json");
}

LoadedMachineProfile load_machine_profile(const std::filesystem::path& file) {
  LoadedMachineProfile loaded;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return loaded;
  try {
    const json root =
        parse_json_object(read_text_file(file, kMaxFileBytes), file.string(), kMaxDepth);
    for (const auto& [name, member] : kFigures) {
      const auto found = root.find(name);
      if (found == root.end()) continue;
      const double value = found->get<double>();
      if (!(value > 0) || !std::isfinite(value)) throw Error(fmt::format("{} is no rate", name));
      loaded.profile.*member = value;
    }
  } catch (const std::exception& cause) {
    loaded.profile = {};
    loaded.warning =
        fmt::format("{}: the measured machine could not be read ({}); `strata bench` makes it anew",
                    file.string(), cause.what());
  }
  return loaded;
}

void save_machine_profile(const std::filesystem::path& file, const MachineProfile& measured) {
  const MachineProfile known = load_machine_profile(file).profile;
  json root = json::object();
  for (const auto& [name, member] : kFigures) {
    const double value = measured.*member > 0 ? measured.*member : known.*member;
    if (value > 0) root[name] = value;
  }
  write_json_file(file, root);
}

}  // namespace strata
