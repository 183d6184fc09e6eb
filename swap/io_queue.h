#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "swap/io_engine.h"

namespace strata {

/// One submit() call: its event happens with the last of its pieces.
struct IoSubmission {
  std::size_t pieces_left = 0;
  std::exception_ptr failure;  ///< the first one
  HostEvent done;
};

/// At most one block of a transfer: what is handed to the kernel at once.
struct IoPiece {
  /// What became of an attempt.
  enum class Outcome : std::uint8_t {
    kComplete,
    kContinue,    ///< the rest must be handed to the kernel now
    kRetryLater,  ///< the same, after a pause: the kernel is short of resources
    kFailed       ///< see system_error
  };

  IoRequest::Kind kind = IoRequest::Kind::kRead;
  IoFile file;
  std::uint64_t offset = 0;     ///< of what is left to transfer
  std::span<std::byte> memory;  ///< what is left to transfer
  std::size_t bytes = 0;        ///< of the whole piece
  int fruitless_attempts = 0;
  int system_error = 0;  ///< errno; 0 when the transfer was short for good
  std::shared_ptr<IoSubmission> submission;

  /// Accounts for an attempt that transferred `result` bytes, or failed with errno -`result`.
  Outcome advance(ssize_t result);
};

/// What the engines share: the files, the transfers that wait, their cutting into pieces, and the
/// accounting. Not thread-safe: an engine guards it with its mutex.
class IoQueue {
 public:
  /// @throws Error if the options make no sense
  explicit IoQueue(const IoEngineOptions& options);

  IoFile open_file(int descriptor, std::string path);
  /// Lets transfers wait for take(). @throws Error if one is not aligned or its file is unknown
  Event push(std::span<const IoRequest> requests);
  /// The next piece to hand to the kernel, if one waits. Reads and writes take turns, so that a
  /// long run of one kind does not keep the other half of the drive idle.
  bool take(IoPiece& piece);
  /// The end of a piece from take(): complete, or failed with its system_error.
  void finish(const IoPiece& piece, IoPiece::Outcome outcome);
  bool has_waiting() const noexcept { return !reads_.waiting.empty() || !writes_.waiting.empty(); }
  IoCounters counters() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Transfer {
    IoRequest rest;
    std::shared_ptr<IoSubmission> submission;
  };
  struct Direction {
    std::deque<Transfer> waiting;
    unsigned under_way = 0;
    Clock::time_point busy_since;
    double busy_seconds = 0;
    std::uint64_t bytes = 0;

    double seconds(Clock::time_point now) const;
  };

  Direction& direction(IoRequest::Kind kind) {
    return kind == IoRequest::Kind::kRead ? reads_ : writes_;
  }
  std::exception_ptr describe_failure(const IoPiece& piece) const;

  std::size_t block_bytes_;
  std::vector<std::string> paths_;  // by IoFile::index
  Direction reads_;
  Direction writes_;
};

}  // namespace strata
