#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "swap/directory_facts.h"

namespace strata {

/// One fact about the machine, whether it stands in Strata's way, and what to do about it.
struct Finding {
  enum class Status : std::uint8_t { kGood, kSlow, kBroken };

  Status status = Status::kGood;
  std::string subject;  ///< "io_uring", "memory", ...
  std::string fact;
  std::string advice;  ///< empty when there is nothing to do
};

/// "good", "slow" (works, with less than the machine could give), "broken".
const char* name(Finding::Status status) noexcept;

/// Looks at everything Strata depends on: processor, cores, memory, locked memory, io_uring, energy
/// counters, MPI, GPU. Changes nothing and takes well under a second. MPI need not be initialised.
std::vector<Finding> examine_machine();

/// Looks at a directory for swap files: writable, direct I/O, alignment, free space, wear.
Finding examine_swap(const std::string& directory);

// The parts whose verdicts depend on numbers, apart from the looking.

/// `cores` allowed of `online`, with the control group granting `quota` cores' worth of time (0: no
/// limit).
Finding judge_cores(std::size_t cores, std::size_t online, double quota);
/// `limit` bytes may be locked; `privileged` processes may lock more (CAP_IPC_LOCK).
Finding judge_locked_memory(std::uint64_t limit, bool privileged);
Finding judge_swap(const DirectoryFacts& facts);
/// `flags` as /proc/cpuinfo lists them.
Finding judge_processor(const std::string& model, const std::string& flags);

}  // namespace strata
