#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/trace.h"

namespace strata {

/// What the time of a step is accounted to.
enum class LaneTime : std::uint8_t {
  kCompute,         ///< the compute lane worked
  kReadWait,        ///< the compute lane waited for sections that were being read or updated
  kWriteWait,       ///< buffers were not free because their bytes were still being written
  kUpdate,          ///< the update lane worked
  kCollective,      ///< the collectives lane worked
  kCollectiveWait,  ///< the compute lane waited for a collective
};
inline constexpr int kLaneTimes = 6;

/// Adds up seconds per LaneTime and shows the same spans in the trace. Thread-safe.
class LaneClock {
 public:
  explicit LaneClock(Trace& trace) : trace_(trace) {}
  Trace& trace() const noexcept { return trace_; }

  void add(LaneTime what, double seconds) {
    std::atomic<double>& sum = seconds_[static_cast<std::size_t>(what)];
    sum.fetch_add(seconds, std::memory_order_relaxed);
  }
  double seconds(LaneTime what) const {
    return seconds_[static_cast<std::size_t>(what)].load(std::memory_order_relaxed);
  }

  /// From construction to destruction: one span of `lane`, accounted to `what`.
  class Span {
   public:
    Span(LaneClock& clock, LaneTime what, TraceLane lane, const char* name, int block,
         std::uint64_t bytes = 0)
        : clock_(clock), what_(what), span_(clock.trace_, lane, name, block, bytes) {}
    ~Span() {
      clock_.add(what_,
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count());
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    LaneClock& clock_;
    LaneTime what_;
    Trace::Span span_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };

 private:
  Trace& trace_;
  std::array<std::atomic<double>, kLaneTimes> seconds_{};
};

}  // namespace strata
