#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "swap/io_engine.h"

namespace strata::test {

/// An engine as unhelpful as its contract allows: reads happen at once, writes not before somebody
/// waits for them (or the engine goes), and then the youngest first. Whoever relies on an order
/// that nobody promised reads old bytes, every time.
class HostileIoEngine final : public IoEngine {
 public:
  explicit HostileIoEngine(IoEngine& real) : writes_(std::make_shared<Writes>(real)) {}
  ~HostileIoEngine() override { writes_->run_until(nullptr); }

  std::string name() const override { return "hostile"; }
  IoFile open_file(int descriptor, std::string path) override {
    return writes_->real.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte>) override {}
  IoCounters counters() const override { return writes_->real.counters(); }

  Event submit(std::span<const IoRequest> requests) override {
    std::vector<IoRequest> reads;
    auto late = std::make_shared<LateWrite>(writes_);
    for (const IoRequest& request : requests) {
      (request.kind == IoRequest::Kind::kRead ? reads : late->requests).push_back(request);
    }
    if (!reads.empty()) late->reads = writes_->real.submit(reads);
    if (late->requests.empty()) {
      try {
        late->reads.wait();
      } catch (...) {  // the caller meets it when waiting for the event
      }
      return late->reads;
    }
    const std::lock_guard lock(writes_->mutex);
    writes_->waiting.push_back(late);
    return Event(late);
  }

 private:
  struct LateWrite;
  struct Writes {
    explicit Writes(IoEngine& engine) : real(engine) {}
    /// Runs waiting writes, the youngest first, up to `last`, or all.
    void run_until(const LateWrite* last);
    IoEngine& real;
    std::mutex mutex;
    std::vector<std::shared_ptr<LateWrite>> waiting;
  };
  struct LateWrite final : Event::State {
    explicit LateWrite(std::shared_ptr<Writes> all) : writes(std::move(all)) {}
    bool ready() const override {
      const std::lock_guard lock(writes->mutex);
      return done;
    }
    void wait() override {
      writes->run_until(this);
      if (failure) std::rethrow_exception(failure);
      reads.wait();
    }
    std::shared_ptr<Writes> writes;
    std::vector<IoRequest> requests;
    Event reads;
    bool done = false;
    std::exception_ptr failure;
  };

  std::shared_ptr<Writes> writes_;
};

inline void HostileIoEngine::Writes::run_until(const LateWrite* last) {
  const std::lock_guard lock(mutex);
  while (!waiting.empty() && !(last != nullptr && last->done)) {
    const std::shared_ptr<LateWrite> write = std::move(waiting.back());
    waiting.pop_back();
    try {
      real.submit(write->requests).wait();
    } catch (...) {
      write->failure = std::current_exception();
    }
    write->done = true;
  }
}

}  // namespace strata::test
