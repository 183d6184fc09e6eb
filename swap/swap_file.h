#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/stream.h"
#include "swap/io_engine.h"
#include "swap/scratch_file.h"
#include "swap/stripe_map.h"

namespace strata {

struct SwapDirectory {
  std::string path;
  double weight = 1;  ///< its share of the bytes is in proportion: measured bytes per second, say
};

/// One range of bytes on drives, striped over one or several directories. Its files have no names
/// and disappear with it; the bytes are unspecified until they were written.
///
/// Thread-safe. A read sees the last write submitted before it: transfers that overlap run in the
/// order of submission when one of them is a write. read() and write() return without waiting for
/// the drive, except that a transfer which overlaps an unfinished one blocks its caller (and nobody
/// else) until that one is done. Failed transfers throw IoError from their event; after a failed
/// write the content is in doubt, so every later call throws that write's error.
class SwapSpace {
 public:
  /// Creates the files and reserves their space. `engine` must outlive the space; its table of
  /// files keeps this space's files open until it goes.
  /// @throws UsageError naming the directory that cannot be used, or has no room, and what to do
  SwapSpace(IoEngine& engine, std::span<const SwapDirectory> directories, std::uint64_t bytes);
  ~SwapSpace();  ///< waits for everything that was submitted
  SwapSpace(const SwapSpace&) = delete;
  SwapSpace& operator=(const SwapSpace&) = delete;

  /// Offset, memory and its size are multiples of kIoAlignment; the memory must stay alive, and for
  /// writes unchanged, until the event happened. @pre the range lies inside bytes()
  Event read(std::uint64_t offset, std::span<std::byte> memory);
  Event write(std::uint64_t offset, std::span<const std::byte> memory);

  std::uint64_t bytes() const noexcept {
    return bytes_;
  }  ///< what was asked for, rounded up to kIoAlignment
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 private:
  /// A transfer that may still be under way.
  struct Pending {
    IoRequest::Kind kind;
    std::uint64_t begin;
    std::uint64_t end;
    Event event;
  };

  Event transfer(IoRequest::Kind kind, std::uint64_t offset, std::span<std::byte> memory);
  std::vector<IoRequest> cut(IoRequest::Kind kind, std::uint64_t offset,
                             std::span<std::byte> memory) const;
  const Pending* find_conflict(const Pending& wanted) const;
  void forget_finished();
  void remember_failure(const Pending& finished);

  IoEngine& engine_;
  std::uint64_t bytes_;
  StripeMap map_;
  std::vector<ScratchFile> files_;
  std::vector<IoFile> handles_;  // by file
  std::vector<std::string> warnings_;

  std::mutex mutex_;
  std::vector<Pending> pending_;   // guarded by mutex_
  std::exception_ptr lost_write_;  // guarded by mutex_
};

}  // namespace strata
