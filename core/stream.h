#pragma once

#include <functional>
#include <memory>
#include <string>

namespace strata {

/// One moment in the work of a stream, or the end of some I/O. A cheap handle; copies are the same
/// event. Default-constructed events have already happened.
///
/// Thread-safe. An event must be recorded before anybody waits for it (Stream::record() gives only
/// recorded ones), so waiting cannot deadlock as long as work is submitted in plan order.
class Event {
 public:
  /// How a backend tells that the moment has come.
  class State {
   public:
    virtual ~State() = default;
    virtual bool ready() const = 0;
    virtual void wait() = 0;  ///< blocks the calling thread; rethrows what made the work fail
  };

  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}

  bool ready() const { return !state_ || state_->ready(); }
  void wait() const {
    if (state_) state_->wait();
  }
  const std::shared_ptr<State>& state() const noexcept { return state_; }

 private:
  std::shared_ptr<State> state_;
};

/// A host-side event that somebody completes by hand, once.
class HostEvent {
 public:
  HostEvent();
  Event event() const;
  void complete() const;
  void fail(std::exception_ptr cause) const;  ///< every wait() rethrows `cause`

 private:
  class Completion;
  std::shared_ptr<Completion> state_;
};

/// A sequence of work that runs in submission order. Work of different streams is ordered only by
/// events. Submission is not thread-safe: one thread submits to a stream at a time.
///
/// When a piece of work throws, what was submitted behind it is dropped, and record()ed events and
/// synchronize() rethrow the cause.
class Stream {
 public:
  virtual ~Stream() = default;

  /// Runs `work` on the host after everything submitted so far. An inline stream runs it before
  /// returning; all others return at once.
  virtual void enqueue(std::function<void()> work) = 0;
  /// Happens when everything submitted so far is done.
  virtual Event record() = 0;
  /// What is submitted from now on runs after `event`. Blocks the caller only on an inline stream.
  virtual void wait(const Event& event) = 0;
  /// Blocks until everything submitted so far is done.
  virtual void synchronize() = 0;
};

/// Runs work inside enqueue(), on the caller's thread: the compute stream of the CPU backend.
std::unique_ptr<Stream> make_inline_stream();

/// A lane of its own: one thread, named `name` (at most 15 characters) in debuggers and traces, that
/// sleeps when it has nothing to do. Destruction finishes the submitted work.
std::unique_ptr<Stream> make_host_stream(const std::string& name);

}  // namespace strata
