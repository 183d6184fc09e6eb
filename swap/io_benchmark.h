#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "swap/device_profile.h"
#include "swap/io_engine.h"
#include "swap/scratch_file.h"

namespace strata {

/// Bytes per second, each way.
struct IoBandwidth {
  double read = 0;
  double write = 0;
  double sum() const noexcept { return read + write; }
};

/// A steady stream of sequential transfers.
struct IoLoad {
  enum class Kind : std::uint8_t { kRead, kWrite, kMixed };
  Kind kind = Kind::kRead;
  double read_share = 14;  ///< kMixed: bytes read for every write_share bytes written, both at once
  double write_share = 12;
  IoEngineOptions engine = {};  ///< block_bytes is the size of a transfer
  double seconds = 5;           ///< measured, after a start-up that does not count
};

/// Ours beside fio's: medians of runs that took turns (ours, fio, ours, fio, ...).
struct IoComparison {
  IoBandwidth ours;
  std::optional<IoBandwidth> fio;  ///< nothing where fio is not installed
  /// Ours over fio's, both directions together. @pre fio
  double fraction() const { return ours.sum() / fio->sum(); }
};

struct IoSweepPoint {
  IoLoad load;
  IoBandwidth bandwidth;
};

/// Measures what a directory's drive sustains, on one scratch file that was written in full before.
/// Calls block for the time they measure; one call at a time.
class IoBenchmark {
 public:
  /// Writes `file_bytes` bytes (a multiple of 8 MiB is used). Should exceed the drive's own cache.
  /// @throws UsageError if the directory cannot be used or has no room; IoError if the drive fails
  explicit IoBenchmark(const std::string& directory,
                       std::uint64_t file_bytes = std::uint64_t{4} << 30);

  /// @throws Error if a transfer does not fit the file or the engine cannot be had
  IoBandwidth measure(const IoLoad& load) const;
  /// The same load on the same file, run by fio with io_uring (libaio where that is forbidden).
  /// Nothing where fio is not installed. @throws Error with fio's words if it fails
  std::optional<IoBandwidth> measure_fio(const IoLoad& load) const;
  IoComparison compare_with_fio(const IoLoad& load, int rounds = 3) const;
  /// Every combination, the other parts of `load` unchanged.
  std::vector<IoSweepPoint> sweep(IoLoad load, std::span<const std::size_t> block_bytes,
                                  std::span<const unsigned> queue_depths,
                                  std::span<const IoEngineOptions::Kind> engines) const;
  /// Read, write and mixed with this load's engine, shares and seconds.
  DeviceProfile profile(IoLoad load) const;

  const std::vector<std::string>& warnings() const noexcept { return file_.warnings(); }

 private:
  ScratchFile file_;
};

/// 16 KiB to 8 MiB, each four times (at the end twice) the one before.
std::vector<std::size_t> sweep_block_bytes();

}  // namespace strata
