#include "core/process.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

#include "core/error.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> read_text(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return std::nullopt;
  return text;
}

std::optional<std::uint64_t> first_number(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> read_number(const fs::path& path) {
  const auto text = read_text(path);
  if (!text) return std::nullopt;
  return first_number(*text);
}

/// The number after `key` at the beginning of a line.
std::optional<std::uint64_t> field(const fs::path& path, std::string_view key) {
  const auto text = read_text(path);
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key)) return first_number(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

/// The folder of this process's control group for `controller` ("" is version 2) under each mount
/// point that could hold it, and the folders above: a limit anywhere on the way binds.
std::vector<fs::path> control_groups(const fs::path& root, std::string_view controller) {
  const auto text = read_text(root / "proc/self/cgroup");
  if (!text) return {};
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    if (names.find(fmt::format(",{},", controller)) == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / controller;
    std::vector<fs::path> found;
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (; !group.empty(); group = group.parent_path()) found.push_back(mount / group);
    found.push_back(mount);
    return found;
  }
  return {};
}

struct MemoryFiles {
  const char* controller;
  const char* limit;
  const char* usage;
  const char* cache;  ///< the line of memory.stat with page cache that can be dropped
};

std::optional<std::uint64_t> left_in_groups(const fs::path& root, const MemoryFiles& files) {
  std::optional<std::uint64_t> left;
  for (const fs::path& group : control_groups(root, files.controller)) {
    const auto limit = read_number(group / files.limit);  // "max" is not a number: no limit
    const auto usage = read_number(group / files.usage);
    if (!limit || !usage) continue;
    const std::uint64_t cache = field(group / "memory.stat", files.cache).value_or(0);
    const std::uint64_t used = *usage - std::min(cache, *usage);
    const std::uint64_t here = *limit - std::min(used, *limit);
    left = std::min(left.value_or(here), here);
  }
  return left;
}

}  // namespace

std::uint64_t rss_bytes() { return 1024 * field("/proc/self/status", "VmRSS:").value_or(0); }

std::uint64_t rss_peak_bytes() { return 1024 * field("/proc/self/status", "VmHWM:").value_or(0); }

std::optional<KernelIo> kernel_io() {
  const auto read = field("/proc/self/io", "read_bytes:");
  const auto written = field("/proc/self/io", "write_bytes:");
  if (!read || !written) return std::nullopt;
  return KernelIo{*read, *written};
}

std::uint64_t available_memory_bytes(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  const auto available = field(meminfo, "MemAvailable:");
  if (!available) throw Error(meminfo.string() + ": no line MemAvailable; is /proc mounted?");
  const auto first = left_in_groups(
      root, {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "});
  const auto second = left_in_groups(root, {"", "memory.max", "memory.current", "inactive_file "});
  const std::uint64_t machine = *available * 1024;
  return std::min({machine, first.value_or(machine), second.value_or(machine)});
}

std::vector<int> allowed_cores(int process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(process, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<std::size_t>(core), &set)) cores.push_back(core);
  }
  return cores;
}

std::optional<double> core_quota(const fs::path& root) {
  std::optional<double> smallest;
  const auto keep = [&smallest](std::uint64_t quota, std::uint64_t period) {
    const double cores = static_cast<double>(quota) / static_cast<double>(period);
    smallest = std::min(smallest.value_or(cores), cores);
  };
  for (const fs::path& group : control_groups(root, "")) {
    const auto text = read_text(group / "cpu.max");  // "150000 100000" or "max 100000"
    if (!text) continue;
    const auto quota = first_number(*text);
    const std::size_t space = text->find(' ');
    if (!quota || space == std::string::npos) continue;
    const auto period = first_number(std::string_view(*text).substr(space));
    if (period && *period > 0) keep(*quota, *period);
  }
  for (const fs::path& group : control_groups(root, "cpu")) {
    const auto quota =
        read_number(group / "cpu.cfs_quota_us");  // -1 is not a number here: no quota
    const auto period = read_number(group / "cpu.cfs_period_us");
    if (quota && period && *period > 0) keep(*quota, *period);
  }
  return smallest;
}

EnergyMeter::EnergyMeter(const fs::path& root) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root / "sys/class/powercap", error)) {
    // "psys" and the core domains count what the packages count already.
    // Some processors show a package a second time, through memory-mapped registers.
    if (entry.path().filename().string().starts_with("intel-rapl-mmio")) continue;
    const std::string name = read_text(entry.path() / "name").value_or("");
    if (!name.starts_with("package") && !name.starts_with("dram")) continue;
    const auto now = read_number(entry.path() / "energy_uj");
    const auto range = read_number(entry.path() / "max_energy_range_uj");
    if (now && range) zones_.push_back({entry.path() / "energy_uj", *range, *now});
  }
}

std::optional<double> EnergyMeter::joules_since_last() {
  if (zones_.empty()) return std::nullopt;
  double joules = 0;
  for (Zone& zone : zones_) {
    const auto now = read_number(zone.counter);
    if (!now) return std::nullopt;
    const std::uint64_t passed =
        *now >= zone.last ? *now - zone.last : *now + zone.range - zone.last;
    joules += static_cast<double>(passed) * 1e-6;
    zone.last = *now;
  }
  return joules;
}

}  // namespace strata
