#include "core/stream.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace strata {

class HostEvent::Completion final : public Event::State {
 public:
  bool ready() const override { return done_.load(std::memory_order_acquire); }
  void wait() override {
    done_.wait(false, std::memory_order_acquire);
    if (cause_) std::rethrow_exception(cause_);
  }
  void complete(std::exception_ptr cause) {
    cause_ = std::move(cause);
    done_.store(true, std::memory_order_release);
    done_.notify_all();
  }

 private:
  std::atomic<bool> done_ = false;
  std::exception_ptr cause_;
};

HostEvent::HostEvent() : state_(std::make_shared<Completion>()) {}
Event HostEvent::event() const { return Event(state_); }
void HostEvent::complete() const { state_->complete(nullptr); }
void HostEvent::fail(std::exception_ptr cause) const { state_->complete(std::move(cause)); }

namespace {

class InlineStream final : public Stream {
 public:
  void enqueue(std::function<void()> work) override { work(); }
  Event record() override { return {}; }
  void wait(const Event& event) override { event.wait(); }
  void synchronize() override {}
};

class HostStream final : public Stream {
 public:
  explicit HostStream(const std::string& name) : thread_([this] { run(); }) {
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }
  ~HostStream() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    arrived_.notify_one();
    thread_.join();
  }

  void enqueue(std::function<void()> work) override {
    push([this, work = std::move(work)] {
      if (!failure_) work();
    });
  }
  Event record() override {
    const HostEvent mark;
    push([this, mark] {
      if (failure_) {
        mark.fail(failure_);
      } else {
        mark.complete();
      }
    });
    return mark.event();
  }
  void wait(const Event& event) override {
    if (!event.state()) return;
    enqueue([event] { event.wait(); });
  }
  void synchronize() override { record().wait(); }

 private:
  void push(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    arrived_.notify_one();
  }
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      try {
        task();
      } catch (...) {
        failure_ = std::current_exception();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool closing_ = false;                     // guarded by mutex_
  std::exception_ptr failure_;               // only the lane's own thread touches it
  std::thread thread_;                       // last: starts when everything above exists
};

}  // namespace

std::unique_ptr<Stream> make_inline_stream() { return std::make_unique<InlineStream>(); }
std::unique_ptr<Stream> make_host_stream(const std::string& name) {
  return std::make_unique<HostStream>(name);
}

}  // namespace strata
