#include "launch/generation_bench/throttled_engine.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "core/error.h"
#include "swap/forwarding_io_engine.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

struct LateEvent final : Event::State {
  LateEvent(Event when_read, Clock::time_point not_before)
      : event(std::move(when_read)), time(not_before) {}
  bool ready() const override { return Clock::now() >= time && event.ready(); }
  void wait() override {
    event.wait();
    std::this_thread::sleep_until(time);
  }
  Event event;
  Clock::time_point time;
};

class ThrottledEngine final : public ForwardingIoEngine {
 public:
  ThrottledEngine(std::unique_ptr<IoEngine> real, double bytes_per_second)
      : ForwardingIoEngine(std::move(real)), bytes_per_second_(bytes_per_second) {}

  std::string name() const override { return ForwardingIoEngine::name() + ", reads limited"; }

  Event submit(std::span<const IoRequest> requests) override {
    double bytes = 0;
    for (const IoRequest& request : requests) {
      if (request.kind == IoRequest::Kind::kRead)
        bytes += static_cast<double>(request.memory.size());
    }
    if (bytes == 0) return ForwardingIoEngine::submit(requests);
    const Clock::time_point time = reserve(bytes);
    return Event(std::make_shared<LateEvent>(ForwardingIoEngine::submit(requests), time));
  }

 private:
  /// When the drive would be done with these bytes, after all that it was given before.
  Clock::time_point reserve(double bytes) {
    const std::chrono::duration<double> needed(bytes / bytes_per_second_);
    const std::lock_guard lock(mutex_);
    free_ = std::max(free_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(needed);
    return free_;
  }

  const double bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point free_ = {};
};

}  // namespace

std::unique_ptr<IoEngine> make_throttled_engine(std::unique_ptr<IoEngine> real,
                                                double bytes_per_second) {
  expects(bytes_per_second > 0, "a drive that is to be limited needs a bandwidth above 0");
  return std::make_unique<ThrottledEngine>(std::move(real), bytes_per_second);
}

}  // namespace strata
