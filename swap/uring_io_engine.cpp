#include <fmt/format.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "swap/io_queue.h"

namespace strata {
namespace {

constexpr unsigned kRegisteredFiles = 64;  // files beyond that work, a little slower
constexpr std::size_t kMaxRegisteredBytes = std::size_t{1} << 30;  // the kernel's limit per buffer
constexpr int kMaxRejections = 5000;  // submissions refused in a row, a millisecond apart
constexpr auto kPause = std::chrono::milliseconds(1);

std::string explain_setup_failure(int system_error) {
  const std::string cause = describe_errno("io_uring is not available", system_error);
  switch (system_error) {
    case ENOSYS:
    case EPERM:
    case EACCES:
      return cause +
             "; the kernel is too old, or forbids it (sysctl kernel.io_uring_disabled=0 allows it, "
             "in a container a seccomp profile that permits io_uring_setup)";
    case ENOMEM:
      return cause + "; raise the limit on locked memory (ulimit -l unlimited)";
    default:
      return cause;
  }
}

/// The rings shared with the kernel.
class Ring {
 public:
  explicit Ring(unsigned entries) {
    // Completions are picked up when the thread enters the kernel anyway; no need to interrupt it.
    int result = io_uring_queue_init(entries, &ring_, IORING_SETUP_COOP_TASKRUN);
    if (result == -EINVAL) result = io_uring_queue_init(entries, &ring_, 0);
    if (result < 0) throw Error(explain_setup_failure(-result));
    if ((ring_.features & IORING_FEAT_NODROP) == 0 || !knows_plain_transfers()) {
      io_uring_queue_exit(&ring_);
      throw Error(
          "io_uring is not available: this kernel's version of it is too old (5.6 is needed)");
    }
  }
  ~Ring() { io_uring_queue_exit(&ring_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  io_uring* get() noexcept { return &ring_; }

 private:
  bool knows_plain_transfers() {
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    if (probe == nullptr) return false;
    const bool known = io_uring_opcode_supported(probe, IORING_OP_READ) != 0 &&
                       io_uring_opcode_supported(probe, IORING_OP_WRITE) != 0;
    io_uring_free_probe(probe);
    return known;
  }

  io_uring ring_{};
};

/// Wakes the I/O thread from the kernel's wait when another thread has submitted something.
class WakeSignal {
 public:
  WakeSignal() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (descriptor_ < 0) throw Error(describe_errno("eventfd for the I/O thread", errno));
  }
  ~WakeSignal() { close(descriptor_); }
  WakeSignal(const WakeSignal&) = delete;
  WakeSignal& operator=(const WakeSignal&) = delete;
  int descriptor() const noexcept { return descriptor_; }
  void raise() const noexcept { eventfd_write(descriptor_, 1); }  // full means raised already
  void clear() const noexcept {
    eventfd_t count = 0;
    eventfd_read(descriptor_, &count);
  }

 private:
  int descriptor_;
};

/// One thread owns the submission and the completion side of the ring: nobody else needs a lock for
/// it, and the price of pinning pages is not paid by the lane that submits.
class UringIoEngine final : public IoEngine {
 public:
  explicit UringIoEngine(const IoEngineOptions& options)
      : queue_(options),
        ring_(options.queue_depth + 1),  // and one for the wake signal
        slots_(options.queue_depth),
        thread_([this] { run(); }) {
    pthread_setname_np(thread_.native_handle(), "strata-uring");
  }
  ~UringIoEngine() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.raise();
    thread_.join();
  }

  std::string name() const override { return "uring"; }
  IoFile open_file(int descriptor, std::string path) override {
    const std::lock_guard lock(mutex_);
    const IoFile file = queue_.open_file(descriptor, std::move(path));
    register_file(file);
    return file;
  }
  void register_memory(std::span<std::byte> memory) override;
  Event submit(std::span<const IoRequest> requests) override {
    Event done;
    {
      const std::lock_guard lock(mutex_);
      submitted_ = true;
      done = queue_.push(requests);
    }
    wake_.raise();
    return done;
  }
  IoCounters counters() const override {
    const std::lock_guard lock(mutex_);
    return queue_.counters();
  }
  std::string notice() const override {
    const std::lock_guard lock(mutex_);
    return notice_;
  }

 private:
  static constexpr std::uint64_t kWake = ~std::uint64_t{0};  // marks the signal's completion

  struct Slot {
    IoPiece piece;
    int buffer = -1;  // the registered one its memory lies in
  };

  void register_file(const IoFile& file);
  int find_buffer(std::span<const std::byte> memory) const;
  void run();
  bool fill();
  bool prepare(std::size_t index);
  void arm_wake();
  void enter_kernel();
  void give_up(int system_error);
  void reap();
  void complete(std::size_t index, int result);
  void fail_ready();
  void release(std::size_t index, IoPiece::Outcome outcome);

  mutable std::mutex mutex_;
  IoQueue queue_;                 // guarded by mutex_
  std::vector<iovec> buffers_;    // guarded by mutex_
  std::vector<bool> registered_;  // by IoFile::index; guarded by mutex_
  std::string notice_;            // guarded by mutex_
  bool submitted_ = false;        // guarded by mutex_
  bool closing_ = false;          // guarded by mutex_

  // Only the I/O thread touches these (registration is a call of its own to the kernel).
  Ring ring_;
  WakeSignal wake_;
  bool wake_armed_ = false;
  bool pause_ = false;  // the kernel is short of resources
  int rejections_ = 0;  // submissions refused in a row
  int broken_ = 0;      // errno: the kernel takes no more submissions
  std::vector<Slot> slots_;
  std::vector<std::size_t> free_;   // slots without a piece
  std::vector<std::size_t> ready_;  // slots whose piece must be handed to the kernel
  std::thread thread_;              // last: starts when everything above exists
};

void UringIoEngine::register_memory(std::span<std::byte> memory) {
  const std::lock_guard lock(mutex_);
  expects(!submitted_, "register_memory() comes before the first submit()");
  std::vector<iovec> wanted = buffers_;
  for (std::size_t begin = 0; begin < memory.size(); begin += kMaxRegisteredBytes) {
    wanted.push_back({memory.data() + begin, std::min(kMaxRegisteredBytes, memory.size() - begin)});
  }
  if (!buffers_.empty()) io_uring_unregister_buffers(ring_.get());
  int result =
      io_uring_register_buffers(ring_.get(), wanted.data(), static_cast<unsigned>(wanted.size()));
  if (result >= 0) {
    buffers_ = std::move(wanted);
    return;
  }
  notice_ = fmt::format(
      "{} bytes of I/O buffers could not be pinned ({}), so each transfer pins its own; "
      "`ulimit -l unlimited` (memlock in /etc/security/limits.conf) lifts that",
      memory.size(), strerror(-result));
  if (buffers_.empty()) return;
  result = io_uring_register_buffers(ring_.get(), buffers_.data(),
                                     static_cast<unsigned>(buffers_.size()));
  if (result < 0) buffers_.clear();
}

void UringIoEngine::register_file(const IoFile& file) {
  if (file.index == 0) {
    const std::vector<int> empty(kRegisteredFiles, -1);
    registered_.assign(kRegisteredFiles, false);
    io_uring_register_files(ring_.get(), empty.data(), kRegisteredFiles);
  }
  const auto index = static_cast<std::size_t>(file.index);
  if (index >= registered_.size()) return;
  registered_[index] = io_uring_register_files_update(ring_.get(), static_cast<unsigned>(index),
                                                      &file.descriptor, 1) == 1;
}

int UringIoEngine::find_buffer(std::span<const std::byte> memory) const {
  const auto found = std::find_if(buffers_.begin(), buffers_.end(), [&](const iovec& buffer) {
    const auto* begin = static_cast<const std::byte*>(buffer.iov_base);
    return memory.data() >= begin && memory.data() + memory.size() <= begin + buffer.iov_len;
  });
  return found == buffers_.end() ? -1 : static_cast<int>(found - buffers_.begin());
}

void UringIoEngine::run() {
  for (std::size_t i = slots_.size(); i > 0; --i) free_.push_back(i - 1);
  while (fill()) {
    enter_kernel();
    reap();
  }
}

/// Hands waiting pieces to the ring. False when everything is done and the engine closes.
bool UringIoEngine::fill() {
  const std::lock_guard lock(mutex_);
  if (broken_ == 0) arm_wake();
  while (!free_.empty() && queue_.take(slots_[free_.back()].piece)) {
    Slot& slot = slots_[free_.back()];
    slot.buffer = find_buffer(slot.piece.memory);
    ready_.push_back(free_.back());
    free_.pop_back();
    if (broken_ != 0) fail_ready();
  }
  if (broken_ != 0) fail_ready();
  // A full ring keeps the rest here until the next completion has made room.
  while (!ready_.empty() && prepare(ready_.back())) ready_.pop_back();
  return !closing_ || free_.size() < slots_.size();
}

/// False when the submission queue is full.
bool UringIoEngine::prepare(std::size_t index) {
  io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
  if (entry == nullptr) return false;
  const Slot& slot = slots_[index];
  const IoPiece& piece = slot.piece;
  const auto number = static_cast<std::size_t>(piece.file.index);
  const bool fixed = number < registered_.size() && registered_[number];
  const int file = fixed ? piece.file.index : piece.file.descriptor;
  const auto bytes = static_cast<unsigned>(piece.memory.size());
  const bool read = piece.kind == IoRequest::Kind::kRead;
  if (slot.buffer >= 0 && read) {
    io_uring_prep_read_fixed(entry, file, piece.memory.data(), bytes, piece.offset, slot.buffer);
  } else if (slot.buffer >= 0) {
    io_uring_prep_write_fixed(entry, file, piece.memory.data(), bytes, piece.offset, slot.buffer);
  } else if (read) {
    io_uring_prep_read(entry, file, piece.memory.data(), bytes, piece.offset);
  } else {
    io_uring_prep_write(entry, file, piece.memory.data(), bytes, piece.offset);
  }
  if (fixed) io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(entry, index);
  return true;
}

void UringIoEngine::arm_wake() {
  if (wake_armed_) return;
  io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
  if (entry == nullptr) return;
  io_uring_prep_poll_add(entry, wake_.descriptor(), POLLIN);
  io_uring_sqe_set_data64(entry, kWake);
  wake_armed_ = true;
}

/// Submits what is prepared and waits for at least one completion.
void UringIoEngine::enter_kernel() {
  if (broken_ != 0 || std::exchange(pause_, false)) std::this_thread::sleep_for(kPause);
  if (broken_ != 0) return;  // what the kernel has accepted still completes
  const int result = io_uring_submit_and_wait(ring_.get(), 1);
  if (result >= 0 || result == -EINTR) {
    rejections_ = 0;
    return;
  }
  pause_ = true;  // EAGAIN, EBUSY: completions will make room
  if (++rejections_ > kMaxRejections) give_up(-result);
}

/// Takes back what the kernel did not accept; from now on every piece fails.
void UringIoEngine::give_up(int system_error) {
  broken_ = system_error;
  const io_uring_sq& queue = ring_.get()->sq;
  const unsigned left = io_uring_sq_ready(ring_.get());
  for (unsigned i = 0; i < left; ++i) {
    const io_uring_sqe& entry = queue.sqes[(*queue.khead + i) & *queue.kring_mask];
    if (entry.user_data != kWake) ready_.push_back(static_cast<std::size_t>(entry.user_data));
  }
}

/// @pre mutex_ is held
void UringIoEngine::fail_ready() {
  for (const std::size_t index : ready_) {
    slots_[index].piece.system_error = broken_;
    release(index, IoPiece::Outcome::kFailed);
  }
  ready_.clear();
}

void UringIoEngine::reap() {
  std::array<io_uring_cqe*, 64> entries{};
  for (;;) {
    const unsigned count =
        io_uring_peek_batch_cqe(ring_.get(), entries.data(), static_cast<unsigned>(entries.size()));
    if (count == 0) return;
    const std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < count; ++i) {
      if (entries[i]->user_data == kWake) {
        wake_.clear();
        wake_armed_ = false;
      } else {
        complete(static_cast<std::size_t>(entries[i]->user_data), entries[i]->res);
      }
    }
    io_uring_cq_advance(ring_.get(), count);
  }
}

/// @pre mutex_ is held
void UringIoEngine::complete(std::size_t index, int result) {
  const IoPiece::Outcome outcome = slots_[index].piece.advance(result);
  const bool retry_later = outcome == IoPiece::Outcome::kRetryLater;
  if (retry_later || outcome == IoPiece::Outcome::kContinue) {
    pause_ = pause_ || retry_later;
    ready_.push_back(index);
  } else {
    release(index, outcome);
  }
}

/// @pre mutex_ is held
void UringIoEngine::release(std::size_t index, IoPiece::Outcome outcome) {
  queue_.finish(slots_[index].piece, outcome);
  slots_[index].piece = {};
  free_.push_back(index);
}

}  // namespace

std::unique_ptr<IoEngine> make_uring_io_engine(const IoEngineOptions& options) {
  return std::make_unique<UringIoEngine>(options);
}

}  // namespace strata
