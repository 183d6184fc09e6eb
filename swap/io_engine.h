#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/stream.h"

namespace strata {

/// Buffers, offsets and lengths of every transfer are multiples of this: what O_DIRECT needs on any
/// drive.
inline constexpr std::size_t kIoAlignment = 4096;

/// A file an engine may transfer to and from. Made by IoEngine::open_file (which may register it).
struct IoFile {
  int descriptor = -1;  ///< borrowed: the owner closes it after the engine has forgotten it
  int index = -1;       ///< the engine's own number
};

/// One transfer. The memory must stay alive, and for writes unchanged, until its event happened.
struct IoRequest {
  enum class Kind : std::uint8_t { kRead, kWrite };
  Kind kind = Kind::kRead;
  IoFile file;
  std::uint64_t offset = 0;     ///< bytes into the file, aligned
  std::span<std::byte> memory;  ///< aligned; kWrite only reads it
};

/// Counted when transfers complete. Bytes as the kernel moved them.
struct IoCounters {
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  double seconds_reading = 0;  ///< time during which at least one read was under way
  double seconds_writing = 0;
};

/// Runs aligned transfers in the background, in any order, and reports each one's result.
///
/// Thread-safe. submit() returns without waiting for the drive; it may block while the queue is
/// full. The event of a submission happens when all of its transfers are complete: short ones were
/// continued, EINTR and EAGAIN were tried again. If any of them fails, waiting for the event throws
/// IoError with the file's path, the offset and the errno; a read that meets the end of the file is
/// such an error. Destruction waits for everything that was submitted.
class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual std::string name() const = 0;  ///< "uring", "threads", ...
  /// Prepares transfers to an open file; `path` is for messages. Files stay registered until the
  /// engine goes.
  virtual IoFile open_file(int descriptor, std::string path) = 0;
  /// Memory that most transfers will use: pinned once instead of at every transfer, where the
  /// system allows it (RLIMIT_MEMLOCK); otherwise nothing happens. Call before the first submit().
  virtual void register_memory(std::span<std::byte> memory) = 0;
  virtual Event submit(std::span<const IoRequest> requests) = 0;
  virtual IoCounters counters() const = 0;
  /// What keeps this engine from its best and how to change that (why io_uring was not to be had,
  /// memory that could not be pinned), in sentences for the user; empty when there is nothing to
  /// say.
  virtual std::string notice() const { return {}; }
};

struct IoEngineOptions {
  enum class Kind : std::uint8_t { kAuto, kUring, kThreads };
  Kind kind = Kind::kAuto;    ///< auto: io_uring, and threads where the kernel does not allow it
  unsigned queue_depth = 64;  ///< transfers in flight
  std::size_t block_bytes = 1 << 20;  ///< longer transfers are cut into pieces of this size
};

/// @throws Error if io_uring was asked for by name and is not to be had, with the reason. With
/// kAuto the reason is the notice() of the engine that took its place.
std::unique_ptr<IoEngine> make_io_engine(const IoEngineOptions& options);
/// @throws Error where the kernel or the container does not allow io_uring, with the reason
std::unique_ptr<IoEngine> make_uring_io_engine(const IoEngineOptions& options);
/// Blocking pread and pwrite on `queue_depth` threads: works everywhere.
std::unique_ptr<IoEngine> make_thread_io_engine(const IoEngineOptions& options,
                                                std::string notice = {});

}  // namespace strata
