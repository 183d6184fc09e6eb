#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "core/stream.h"
#include "core/trace.h"

namespace strata {

/// What the time of a step is accounted to.
enum class LaneTime : std::uint8_t {
  kCompute,     ///< the compute lane worked
  kReadWait,    ///< the compute lane waited for sections that were being read or updated
  kWriteWait,   ///< buffers were not free because their bytes were still being written
  kUpdate,      ///< the update lane worked
  kCollective,  ///< the collectives lane worked
};
inline constexpr int kLaneTimes = 5;

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

  /// Accounts to `what`, and shows as one span of `row`, the work that `submit` puts on `lane`.
  template <typename Submit>
  void on_lane(Stream& lane, LaneTime what, TraceLane row, const char* name, int block,
               std::uint64_t bytes, Submit&& submit) {
    const auto begin_ns = std::make_shared<std::uint64_t>(0);
    lane.enqueue([begin_ns] { *begin_ns = Trace::now_ns(); });
    submit();
    lane.enqueue([this, begin_ns, what, row, name, block, bytes] {
      const std::uint64_t end_ns = Trace::now_ns();
      add(what, 1e-9 * static_cast<double>(end_ns - *begin_ns));
      trace_.add(row, name, *begin_ns, end_ns, block, bytes);
    });
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
