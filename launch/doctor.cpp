#include "launch/doctor.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/process.h"
#include "core/units.h"
#include "swap/io_engine.h"

namespace strata {
namespace {

using Status = Finding::Status;

/// The text after "key :" in the first line of a file that begins with `key`.
std::string value_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

bool may_lock_any_memory() {
  constexpr int kCapIpcLock = 14;
  const std::string effective = value_of("/proc/self/status", "CapEff");
  return (std::strtoull(effective.c_str(), nullptr, 16) >> kCapIpcLock & 1u) != 0;
}

Finding examine_processor() {
  return judge_processor(value_of("/proc/cpuinfo", "model name"),
                         value_of("/proc/cpuinfo", "flags"));
}

Finding examine_cores() {
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return judge_cores(allowed_cores().size(), online > 0 ? static_cast<std::size_t>(online) : 1,
                     core_quota().value_or(0));
}

Finding examine_memory() {
  const std::uint64_t bytes = available_memory_bytes();
  const std::string fact = format_bytes(bytes) + " available";
  constexpr std::uint64_t kLittle = 1ull << 30;
  if (bytes >= kLittle) return {Status::kGood, "memory", fact, ""};
  return {Status::kSlow, "memory", fact,
          "close other programs or raise the memory limit of the container"};
}

Finding examine_locked_memory() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return judge_locked_memory(limit.rlim_cur, may_lock_any_memory());
}

Finding examine_io_uring() {
  try {
    const auto engine = make_uring_io_engine({});
    return {Status::kGood, "io_uring", "works", ""};
  } catch (const Error& error) {
    return {Status::kSlow, "io_uring", error.what(),
            "threads are used instead; allow io_uring_setup in the container's seccomp profile and "
            "sysctl kernel.io_uring_disabled=0"};
  }
}

Finding examine_energy() {
  if (EnergyMeter().joules_since_last())
    return {Status::kGood, "energy", "RAPL counters are readable", ""};
  return {Status::kGood, "energy", "no readable RAPL counter: energy_joules will be null",
          "run as root on a machine that has /sys/class/powercap/intel-rapl:0"};
}

Finding examine_mpi() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  int major = 0;
  int minor = 0;
  MPI_Get_library_version(text, &length);
  MPI_Get_version(&major, &minor);
  std::string library(text, static_cast<std::size_t>(length));
  library = library.substr(0, library.find_first_of(",\n"));
  const std::string fact = fmt::format("{}, MPI {}.{}", library, major, minor);
  const bool refuses_root = library.starts_with("Open MPI") && geteuid() == 0 &&
                            std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr;
  if (!refuses_root) return {Status::kGood, "MPI", fact, ""};
  return {Status::kGood, "MPI", fact + "; its mpirun refuses to run as root",
          "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"};
}

Finding examine_gpu() {
  if (!std::filesystem::exists("/dev/nvidia0")) return {Status::kGood, "GPU", "none", ""};
  return {Status::kSlow, "GPU", "an NVIDIA GPU is here, but this build computes on the CPU",
          "nothing to do: this version has no CUDA backend"};
}

}  // namespace

const char* name(Finding::Status status) noexcept {
  switch (status) {
    case Status::kGood:
      return "good";
    case Status::kSlow:
      return "slow";
    case Status::kBroken:
      return "broken";
  }
  return "unknown";
}

Finding judge_cores(std::size_t cores, std::size_t online, double quota) {
  std::string fact = fmt::format("{} of {} cores", cores, online);
  if (quota > 0) fact += fmt::format(", a quota of {:.1f} cores' time", quota);
  if (quota > 0 && quota < static_cast<double>(cores)) {
    return {
        Status::kSlow, "cores", fact,
        fmt::format("threads beyond the quota are put to sleep; give the container {} cores or set "
                    "OMP_NUM_THREADS={}",
                    cores, static_cast<int>(quota) < 1 ? 1 : static_cast<int>(quota))};
  }
  if (cores < online) {
    return {
        Status::kSlow, "cores", fact,
        "this process is bound; strata takes its share by itself (--bind auto), else use mpirun "
        "--bind-to none or taskset"};
  }
  return {Status::kGood, "cores", fact, ""};
}

Finding judge_locked_memory(std::uint64_t limit, bool privileged) {
  constexpr std::uint64_t kEnough = 1ull << 30;
  if (privileged)
    return {Status::kGood, "locked memory", "no limit for this user (CAP_IPC_LOCK)", ""};
  if (limit == RLIM_INFINITY) return {Status::kGood, "locked memory", "no limit", ""};
  const std::string fact = format_bytes(limit) + " may be locked";
  if (limit >= kEnough) return {Status::kGood, "locked memory", fact, ""};
  return {Status::kSlow, "locked memory", fact,
          "I/O buffers are pinned at every transfer instead of once; raise it with ulimit -l or "
          "memlock "
          "in /etc/security/limits.conf"};
}

Finding judge_swap(const DirectoryFacts& facts) {
  const std::string subject = "swap " + facts.path;
  std::string fact = facts.filesystem;
  if (!facts.block_device.empty()) fact += " on " + facts.block_device;
  fact += fmt::format(", {} free", format_bytes(facts.free_bytes));
  if (facts.takes_direct_io && facts.offset_alignment > 0) {
    fact += fmt::format(", direct I/O aligned to {} (memory {})",
                        format_bytes(facts.offset_alignment), format_bytes(facts.memory_alignment));
  } else {
    fact += facts.takes_direct_io ? ", direct I/O" : ", no direct I/O";
  }
  if (facts.wear) fact += fmt::format(", {:.0f}% of the rated writes used", *facts.wear * 100);
  if (facts.is_tmpfs) {
    return {Status::kSlow, subject, fact, "its files lie in memory; use a directory on a drive"};
  }
  if (!facts.takes_direct_io) {
    return {Status::kSlow, subject, fact,
            "every transfer is copied through the page cache; use ext4 or xfs on a local drive"};
  }
  if (facts.offset_alignment > kIoAlignment || facts.memory_alignment > kIoAlignment) {
    return {Status::kBroken, subject, fact,
            fmt::format("transfers are aligned to {}; use a drive that takes that",
                        format_bytes(kIoAlignment))};
  }
  if (facts.wear && *facts.wear >= 0.9) {
    return {Status::kSlow, subject, fact,
            "the drive is near the end of its rated life; replace it"};
  }
  return {Status::kGood, subject, fact, ""};
}

Finding examine_swap(const std::string& directory) {
  try {
    return judge_swap(probe_directory(directory));
  } catch (const Error& error) {
    return {Status::kBroken, "swap " + directory, error.what(),
            "name a directory on a fast local drive that you may write to"};
  }
}

Finding judge_processor(const std::string& model, const std::string& flags) {
  constexpr const char* kFeatures[][2] = {{"amx_bf16", "AMX"},
                                          {"avx512_bf16", "AVX512_BF16"},
                                          {"avx512f", "AVX-512"},
                                          {"avx2", "AVX2"}};
  std::vector<std::string> found;
  const std::string padded = " " + flags + " ";
  for (const auto& feature : kFeatures) {
    if (padded.find(fmt::format(" {} ", feature[0])) != std::string::npos)
      found.emplace_back(feature[1]);
  }
  const std::string list = found.empty() ? "none" : fmt::format("{}", fmt::join(found, ", "));
  const std::string fact = fmt::format("{}; of AMX, AVX512_BF16, AVX-512 and AVX2: {}",
                                       model.empty() ? "unknown" : model, list);
  const bool has_bf16 = !found.empty() && (found[0] == "AMX" || found[0] == "AVX512_BF16");
  if (has_bf16) return {Status::kGood, "processor", fact, ""};
  if (found.empty()) {
    return {Status::kSlow, "processor", fact,
            "use a machine with AVX2 at least, or a VM that shows it"};
  }
  return {Status::kGood, "processor", fact,
          "it has no bf16 products: --compute fp32 may be as fast as bf16, with twice the gathered "
          "bytes"};
}

std::vector<Finding> examine_machine() {
  return {examine_processor(), examine_cores(),  examine_memory(), examine_locked_memory(),
          examine_io_uring(),  examine_energy(), examine_mpi(),    examine_gpu()};
}

}  // namespace strata
