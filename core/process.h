#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace strata {

/// Resident memory of this process in bytes, now and at its highest. 0 when /proc cannot be read.
std::uint64_t rss_bytes();
std::uint64_t rss_peak_bytes();

/// What the kernel sent to and fetched from drives for this process (/proc/self/io), in bytes.
struct KernelIo {
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
};
/// Nothing when the kernel does not count it or does not let us see it.
std::optional<KernelIo> kernel_io();

/// Bytes that may still be used: the smaller of the machine's MemAvailable and what the memory
/// control groups above this process leave (limit - usage + page cache that can go), versions 1
/// and 2. `root` is where /proc and /sys are looked for.
/// @throws Error when /proc/meminfo cannot be read
std::uint64_t available_memory_bytes(const std::filesystem::path& root = "/");

/// Cores that `process` (0: this one) may run on, its affinity mask, in ascending order. Empty when
/// the kernel does not tell.
std::vector<int> allowed_cores(int process = 0);

/// Cores' worth of time the control group grants, e.g. 1.5; nothing without a quota.
std::optional<double> core_quota(const std::filesystem::path& root = "/");

/// Energy of the processor packages and their DRAM, from the RAPL counters under
/// /sys/class/powercap. They are readable by root only on most systems.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::filesystem::path& root = "/");
  /// Joules since construction or the previous call; nothing when there is no readable counter.
  std::optional<double> joules_since_last();

 private:
  struct Zone {
    std::filesystem::path counter;
    std::uint64_t range = 0;  ///< the counter wraps here, microjoules
    std::uint64_t last = 0;
  };
  std::vector<Zone> zones_;
};

}  // namespace strata
