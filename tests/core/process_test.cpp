#include "core/process.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::write_file;

TEST(Process, SeesItsMemoryGrow) {
  std::vector<char> memory(64 << 20, 1);
  EXPECT_GE(rss_bytes(), memory.size());
  EXPECT_GE(rss_peak_bytes(), memory.size());
  volatile char* kept = memory.data();
  kept[0] = 2;
}

TEST(Process, TakesTheSmallestOfMachineAndControlGroups) {
  const test::TemporaryDirectory root;
  write_file(root / "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   8000 kB\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 8000u * 1024);

  // Version 2: the group has no limit, the one above leaves 4 MiB beside 1 MiB of page cache.
  write_file(root / "proc/self/cgroup", "0::/job/task\n");
  write_file(root / "sys/fs/cgroup/job/task/memory.max", "max\n");
  write_file(root / "sys/fs/cgroup/job/task/memory.current", "1048576\n");
  write_file(root / "sys/fs/cgroup/job/memory.max", "6291456\n");
  write_file(root / "sys/fs/cgroup/job/memory.current", "3145728\n");
  write_file(root / "sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 1048576\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 4194304u);

  // Version 1, seen from inside a container: the path is the host's, only the mount point is there.
  write_file(root / "proc/self/cgroup", "4:memory:/host/path\n1:cpu,cpuacct:/\n");
  write_file(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
  write_file(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", "3145728\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 0u)
      << "usage above the limit is not a huge number";
}

TEST(Process, SaysWhatIsMissingWhenThereIsNoMeminfo) {
  const test::TemporaryDirectory root;
  EXPECT_THROW(available_memory_bytes(root.path()), Error);
}

TEST(Process, ReadsTheCoreQuotaOfBothVersions) {
  const test::TemporaryDirectory root;
  EXPECT_FALSE(core_quota(root.path()).has_value());
  write_file(root / "proc/self/cgroup", "0::/\n");
  write_file(root / "sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_FALSE(core_quota(root.path()).has_value());
  write_file(root / "sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(core_quota(root.path()).value(), 1.5);
  write_file(root / "proc/self/cgroup", "1:cpu,cpuacct:/\n");
  write_file(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  write_file(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(core_quota(root.path()).has_value());
  write_file(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  EXPECT_DOUBLE_EQ(core_quota(root.path()).value(), 2.0);
}

TEST(EnergyMeter, AddsPackagesAndMemoryAndSurvivesTheWrap) {
  const test::TemporaryDirectory root;
  const auto zone = [&root](const std::string& directory, const char* name, const char* energy) {
    const auto path = root / ("sys/class/powercap/" + directory);
    write_file(path / "name", name);
    write_file(path / "energy_uj", energy);
    write_file(path / "max_energy_range_uj", "10000000\n");
  };
  zone("intel-rapl:0", "package-0\n", "9000000\n");
  zone("intel-rapl:0:0", "core\n", "0\n");
  zone("intel-rapl:0:1", "dram\n", "1000000\n");
  zone("intel-rapl-mmio:0", "package-0\n", "9000000\n");  // the same counter once more
  EnergyMeter meter(root.path());
  zone("intel-rapl:0", "package-0\n", "2000000\n");
  zone("intel-rapl:0:0", "core\n", "5000000\n");
  zone("intel-rapl:0:1", "dram\n", "1500000\n");
  zone("intel-rapl-mmio:0", "package-0\n", "2000000\n");
  EXPECT_DOUBLE_EQ(meter.joules_since_last().value(), 3.5);
  EXPECT_DOUBLE_EQ(meter.joules_since_last().value(), 0.0);
}

TEST(EnergyMeter, KnowsNothingWithoutCounters) {
  const test::TemporaryDirectory root;
  EXPECT_FALSE(EnergyMeter(root.path()).joules_since_last().has_value());
}

}  // namespace
}  // namespace strata
