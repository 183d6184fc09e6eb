#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace strata {

/// The rows of a timeline: what can run at the same time within a rank.
enum class TraceLane : std::uint8_t {
  kStep,
  kRead,
  kWrite,
  kUpdate,
  kCopy,
  kCollectives,
  kCompute
};
inline constexpr int kTraceLanes = 7;
/// "step", "read", "write", "update", "copy", "collectives", "compute".
const char* name(TraceLane lane) noexcept;

/// What one rank did when, to be looked at in Perfetto or chrome://tracing: the proof of overlap.
///
/// Thread-safe. When it is not enabled, every call is one branch; else it is one short lock. Times
/// are nanoseconds of now_ns(). At most `capacity` events are kept (about 50 bytes each), later
/// ones are counted and dropped. Names must live as long as the Trace: string literals.
class Trace {
 public:
  static constexpr std::size_t kDefaultCapacity = 1'000'000;

  explicit Trace(bool enabled, std::size_t capacity = kDefaultCapacity);

  bool enabled() const noexcept { return enabled_; }
  /// CLOCK_MONOTONIC_RAW: one clock for all processes of a machine, never adjusted.
  static std::uint64_t now_ns() noexcept;

  /// Something took from `begin_ns` to `end_ns`. `block` and `bytes` appear as arguments; -1 and 0:
  /// none.
  void add(TraceLane lane, const char* name, std::uint64_t begin_ns, std::uint64_t end_ns,
           std::int64_t block = -1, std::uint64_t bytes = 0);

  /// Makes this moment zero in the file. Call it on every rank right after one barrier: ranks on
  /// one machine share a clock and are aligned exactly, machines are aligned to within the
  /// barrier's jitter.
  void set_origin();

  /// This rank's events, for Communicator::gather_bytes and write_trace. Blocks add() meanwhile.
  std::vector<std::byte> to_bytes() const;

  /// Records from its construction to its destruction.
  class Span {
   public:
    Span(Trace& trace, TraceLane lane, const char* name, std::int64_t block = -1,
         std::uint64_t bytes = 0)
        : trace_(trace.enabled() ? &trace : nullptr),
          name_(name),
          block_(block),
          bytes_(bytes),
          lane_(lane) {
      if (trace_ != nullptr) begin_ns_ = now_ns();
    }
    ~Span() {
      if (trace_ != nullptr) trace_->add(lane_, name_, begin_ns_, now_ns(), block_, bytes_);
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    Trace* trace_;
    const char* name_;
    std::int64_t block_;
    std::uint64_t bytes_;
    std::uint64_t begin_ns_ = 0;
    TraceLane lane_;
  };

 private:
  struct Event {
    const char* name;
    std::uint64_t begin_ns;
    std::uint64_t end_ns;
    std::int64_t block;
    std::uint64_t bytes;
    std::uint8_t lane;
  };
  void keep(const Event& event);

  bool enabled_;
  std::size_t capacity_;
  mutable std::mutex mutex_;
  std::deque<Event> events_;
  std::uint64_t dropped_ = 0;
  std::uint64_t origin_ns_;
};

/// Writes `ranks[r]`, made by to_bytes() on rank r, as one Chrome Trace Event file: a process per
/// rank, a thread per lane.
/// @throws FormatError when the bytes are damaged, IoError when the file cannot be written
void write_trace(const std::string& path, std::span<const std::vector<std::byte>> ranks);

}  // namespace strata
