#include "launch/core_binding.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/process.h"

namespace strata {
namespace {

std::optional<int> number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc{} || end != view.data() + view.size() || value < 0) return std::nullopt;
  return value;
}

struct Process {
  std::string name;
  pid_t parent = 0;
};

// /proc/<pid>/stat is "pid (name) state parent ..."; the name may hold spaces and brackets.
std::optional<Process> process_of(pid_t id) {
  std::ifstream file(fmt::format("/proc/{}/stat", id));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t open = line.find('(');
  const std::size_t close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 4 > line.size()) {
    return std::nullopt;
  }
  Process process{line.substr(open + 1, close - open - 1), 0};
  const char* begin = line.data() + close + 4;
  std::from_chars(begin, line.data() + line.size(), process.parent);
  return process;
}

// mpirun narrows the mask of the ranks it starts, not its own: its mask is what the user (taskset),
// the batch system and the container allow. Scripts may stand between it and the rank.
std::vector<int> cpus_of_launcher() {
  constexpr std::string_view kLaunchers[] = {"mpirun",  "orterun", "orted",
                                             "mpiexec", "prterun", "prted"};
  pid_t id = getppid();
  for (int generation = 0; generation < 8 && id > 1; ++generation) {
    const std::optional<Process> process = process_of(id);
    if (!process) break;
    if (std::ranges::find(kLaunchers, process->name) != std::end(kLaunchers))
      return allowed_cores(id);
    id = process->parent;
  }
  return {};
}

// Whether the user said how to bind; "none" leaves the choice to us.
bool user_chose_binding() {
  const char* policy = std::getenv("OMPI_MCA_hwloc_base_binding_policy");
  return policy != nullptr && std::string_view(policy) != "none";
}

int topology(int cpu, const char* what, int fallback) {
  std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/{}", cpu, what));
  int value = 0;
  return file >> value ? value : fallback;
}

std::vector<HardwareThread> threads_of(const std::vector<int>& cpus) {
  std::vector<HardwareThread> threads;
  for (const int cpu : cpus) {
    threads.push_back(
        {cpu, topology(cpu, "physical_package_id", 0), topology(cpu, "core_id", cpu)});
  }
  return threads;
}

int compute_threads(const std::vector<HardwareThread>& threads, int ranks) {
  std::set<std::pair<int, int>> cores;
  for (const HardwareThread& thread : threads) cores.emplace(thread.package, thread.core);
  const int count = static_cast<int>(cores.size());
  const std::optional<double> quota = core_quota();
  if (!quota) return count;
  return std::clamp(static_cast<int>(*quota / ranks), 1, count);
}

void bind(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    throw Error(describe_errno(
        fmt::format("could not bind to cores {}; use --strata.bind=keep", format_cpus(cpus)),
        errno));
  }
}

std::string cores(std::span<const int> cpus) {
  return fmt::format("core{} {}", cpus.size() == 1 ? "" : "s", format_cpus(cpus));
}

}  // namespace

LocalRank local_rank() {
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"}};
  LocalRank local;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    local.launched = local.launched || std::getenv(name) != nullptr;
  }
  for (const auto& [rank, size] : kNames) {
    const std::optional<int> r = number_in_environment(rank);
    const std::optional<int> s = number_in_environment(size);
    if (r && s && *r < *s) {
      local.rank = *r;
      local.size = *s;
      return local;
    }
  }
  return local;
}

std::optional<int> launched_rank() {
  // Slurm's last: a job script has it, and so have the ranks that mpirun starts there.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const std::optional<int> rank = number_in_environment(name)) return rank;
  }
  return std::nullopt;
}

std::vector<HardwareThread> share_of_threads(std::vector<HardwareThread> threads, int rank,
                                             int size) {
  expects(!threads.empty(), "there is no core to share");
  std::ranges::sort(threads, {}, [](const HardwareThread& thread) {
    return std::tuple(thread.package, thread.core, thread.cpu);
  });
  const int count = static_cast<int>(threads.size());
  if (size > count) return {threads[static_cast<std::size_t>(rank % count)]};
  const auto edge = [&](int r) { return threads.begin() + count * r / size; };
  return {edge(rank), edge(rank + 1)};
}

Binding bind_to_share(BindMode mode) {
  const LocalRank local = local_rank();
  const std::vector<int> own = allowed_cores();
  expects(!own.empty(), "the kernel does not tell which cores this process may use");
  const bool keep = mode == BindMode::kKeep || user_chose_binding();
  const std::vector<int> available = keep ? std::vector<int>{} : cpus_of_launcher();

  std::vector<HardwareThread> threads = threads_of(own);
  std::string why = "as the launcher bound it";
  // Without a launcher in sight its ranks may already have different masks: leave them alone.
  if (!available.empty()) {
    threads = share_of_threads(threads_of(available), local.rank, local.size);
    why = own == available ? "mpirun had not bound it"
                           : fmt::format("mpirun had bound it to {}", cores(own));
  } else if (!local.launched) {
    why = "all it may use";
  }
  Binding binding;
  for (const HardwareThread& thread : threads) binding.cpus.push_back(thread.cpu);
  std::ranges::sort(binding.cpus);
  if (binding.cpus != own) bind(binding.cpus);
  // A kept mask may be shared by all ranks, for all we know, but then the user wanted it so.
  binding.compute_threads = compute_threads(threads, local.size);
  binding.description = fmt::format("rank {} of {} on this node: {} ({})", local.rank, local.size,
                                    cores(binding.cpus), why);
  return binding;
}

std::string format_cpus(std::span<const int> cpus) {
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[i]);
    if (last > i) text += fmt::format("-{}", cpus[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace strata
