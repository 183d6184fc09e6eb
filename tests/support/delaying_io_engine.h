#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "swap/io_engine.h"

namespace strata::test {

/// A real engine on a slower drive: the event of every submission happens `latency` later than it
/// would. Submissions do not delay each other.
class DelayingIoEngine final : public IoEngine {
 public:
  DelayingIoEngine(IoEngine& real, std::chrono::milliseconds latency)
      : real_(real), latency_(latency) {}

  std::string name() const override { return "delaying"; }
  IoFile open_file(int descriptor, std::string path) override {
    return real_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { real_.register_memory(memory); }
  IoCounters counters() const override { return real_.counters(); }
  Event submit(std::span<const IoRequest> requests) override {
    return Event(std::make_shared<Late>(real_.submit(requests), Clock::now() + latency_));
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct Late final : Event::State {
    Late(Event real, Clock::time_point at) : event(std::move(real)), time(at) {}
    bool ready() const override { return event.ready() && Clock::now() >= time; }
    void wait() override {
      std::this_thread::sleep_until(time);
      event.wait();
    }
    Event event;
    Clock::time_point time;
  };

  IoEngine& real_;
  const std::chrono::milliseconds latency_;
};

}  // namespace strata::test
