#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "swap/io_queue.h"

namespace strata {
namespace {

IoPiece::Outcome attempt(IoPiece& piece) {
  const auto offset = static_cast<off_t>(piece.offset);
  const ssize_t result =
      piece.kind == IoRequest::Kind::kRead
          ? pread(piece.file.descriptor, piece.memory.data(), piece.memory.size(), offset)
          : pwrite(piece.file.descriptor, piece.memory.data(), piece.memory.size(), offset);
  return piece.advance(result < 0 ? -errno : result);
}

class ThreadIoEngine final : public IoEngine {
 public:
  ThreadIoEngine(const IoEngineOptions& options, std::string notice)
      : notice_(std::move(notice)), queue_(options) {
    try {
      for (unsigned i = 0; i < options.queue_depth; ++i) {
        threads_.emplace_back([this] { run(); });
        pthread_setname_np(threads_.back().native_handle(), "strata-io");
      }
    } catch (const std::system_error& cause) {
      const std::size_t started = threads_.size();
      stop();
      throw Error(
          fmt::format("only {} of {} I/O threads could be started ({}); lower the I/O queue "
                      "depth or raise `ulimit -u`",
                      started, options.queue_depth, cause.what()));
    }
  }
  ~ThreadIoEngine() override { stop(); }

  std::string name() const override { return "threads"; }
  IoFile open_file(int descriptor, std::string path) override {
    const std::lock_guard lock(mutex_);
    return queue_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte>) override {}  // pread has no use for it
  Event submit(std::span<const IoRequest> requests) override {
    Event done;
    {
      const std::lock_guard lock(mutex_);
      done = queue_.push(requests);
    }
    arrived_.notify_one();
    return done;
  }
  IoCounters counters() const override {
    const std::lock_guard lock(mutex_);
    return queue_.counters();
  }
  std::string notice() const override { return notice_; }

 private:
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    arrived_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void run() {
    IoPiece piece;
    std::unique_lock lock(mutex_);
    for (;;) {
      bool taken = false;
      arrived_.wait(lock, [&] { return (taken = queue_.take(piece)) || closing_; });
      if (!taken) return;
      if (queue_.has_waiting())
        arrived_.notify_one();  // each wakes the next: no herd for one piece
      lock.unlock();
      const IoPiece::Outcome outcome = transfer(piece);
      lock.lock();
      queue_.finish(piece, outcome);
    }
  }
  static IoPiece::Outcome transfer(IoPiece& piece) {
    for (;;) {
      const IoPiece::Outcome outcome = attempt(piece);
      if (outcome == IoPiece::Outcome::kRetryLater) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else if (outcome != IoPiece::Outcome::kContinue) {
        return outcome;
      }
    }
  }

  const std::string notice_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  IoQueue queue_;         // guarded by mutex_
  bool closing_ = false;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_io_engine(const IoEngineOptions& options,
                                                std::string notice) {
  return std::make_unique<ThreadIoEngine>(options, std::move(notice));
}

}  // namespace strata
