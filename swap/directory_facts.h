#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace strata {

/// What the planner and `strata doctor` know about a directory before anything is written to it.
struct DirectoryFacts {
  std::string path;
  std::string filesystem;         ///< "ext4", "xfs", "tmpfs", ...; "0x..." when unknown
  std::uint64_t free_bytes = 0;   ///< for an ordinary user
  bool is_tmpfs = false;          ///< its bytes lie in memory
  bool takes_direct_io = false;   ///< tried with a nameless file
  unsigned memory_alignment = 0;  ///< for direct I/O, bytes; 0: the kernel does not say
  unsigned offset_alignment = 0;  ///< the same
  std::string block_device;       ///< "nvme0n1"; empty for network, memory and layered filesystems
  std::optional<double>
      wear;  ///< part of the rated writes the drive has taken; needs root and NVMe
};

/// Looks, writes nothing. @throws UsageError naming the path if it is not a directory that can be
/// written
DirectoryFacts probe_directory(const std::string& path);

}  // namespace strata
