#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace strata {

enum class BindMode {
  kAuto,  ///< a share of the node's cores, unless the user told the launcher how to bind
  kKeep,  ///< whatever the launcher did
};

/// This process among those that a launcher started on the node, from the launcher's environment.
struct LocalRank {
  int rank = 0;
  int size = 1;
  bool launched = false;  ///< by mpirun, srun or their like: MPI will find its other ranks
};
LocalRank local_rank();

/// This process among all that a launcher started, on every node; nothing when no launcher tells.
std::optional<int> launched_rank();

/// One hardware thread and the physical core it belongs to.
struct HardwareThread {
  int cpu = 0;
  int package = 0;
  int core = 0;  ///< within the package
};

/// The part of `threads` that belongs to `rank` of `size`: contiguous in the order of packages and
/// cores, equal to within one; with more ranks than threads, one thread that others use too.
/// @pre threads is not empty
std::vector<HardwareThread> share_of_threads(std::vector<HardwareThread> threads, int rank,
                                             int size);

/// What a rank may run on.
struct Binding {
  std::vector<int> cpus;    ///< ascending
  int compute_threads = 1;  ///< one per physical core, at most the control group's quota
  std::string description;  ///< "rank 0 of 2: core 0 (mpirun had bound it to core 0)"
};

/// Binds the calling thread, and so all threads it starts later, to this rank's share of what the
/// launcher itself may use: mpirun binds each of one or two ranks to a single core by default,
/// which leaves a compute team no cores. Respects --bind-to and taskset. Call it before MPI and
/// OpenMP start.
/// @throws Error when the kernel refuses
Binding bind_to_share(BindMode mode);

/// "0-3,8": ascending numbers as the kernel and taskset write them.
std::string format_cpus(std::span<const int> cpus);

}  // namespace strata
