#include "swap/io_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

constexpr int kMaxFruitlessAttempts = 100;
constexpr std::size_t kMaxBlockBytes = std::size_t{1} << 30;  // below what one read(2) can transfer
constexpr unsigned kMaxQueueDepth = 4096;

bool is_aligned(std::uint64_t value) { return value % kIoAlignment == 0; }

void check_request(const IoRequest& request, std::size_t files) {
  expects(request.file.index >= 0 && static_cast<std::size_t>(request.file.index) < files,
          "a transfer needs a file of the same engine's open_file()");
  expects(is_aligned(request.offset) && is_aligned(request.memory.size()) &&
              is_aligned(reinterpret_cast<std::uintptr_t>(request.memory.data())),
          "offset, length and memory of a transfer must be multiples of 4096");
}

}  // namespace

IoPiece::Outcome IoPiece::advance(ssize_t result) {
  const auto fruitless = [this](Outcome outcome) {
    return ++fruitless_attempts > kMaxFruitlessAttempts ? Outcome::kFailed : outcome;
  };
  if (result < 0) {
    system_error = static_cast<int>(-result);
    if (system_error == EINTR) return fruitless(Outcome::kContinue);
    if (system_error == EAGAIN) return fruitless(Outcome::kRetryLater);
    return Outcome::kFailed;
  }
  system_error = 0;
  const auto transferred = static_cast<std::size_t>(result);
  if (transferred >= memory.size()) {
    memory = {};
    return Outcome::kComplete;
  }
  if (transferred == 0) return Outcome::kFailed;
  // Direct I/O cannot go on at an unaligned offset, so a few bytes are transferred again.
  const std::size_t kept = transferred - transferred % kIoAlignment;
  offset += kept;
  memory = memory.subspan(kept);
  return kept == 0 ? fruitless(Outcome::kContinue) : Outcome::kContinue;
}

IoQueue::IoQueue(const IoEngineOptions& options) : block_bytes_(options.block_bytes) {
  expects(options.queue_depth >= 1 && options.queue_depth <= kMaxQueueDepth,
          "the queue depth of an I/O engine lies between 1 and 4096");
  expects(
      block_bytes_ >= kIoAlignment && block_bytes_ <= kMaxBlockBytes && is_aligned(block_bytes_),
      "the block size of an I/O engine is a multiple of 4096 of at most 1 GiB");
}

IoFile IoQueue::open_file(int descriptor, std::string path) {
  expects(descriptor >= 0, "open_file() needs an open descriptor");
  paths_.push_back(std::move(path));
  return {descriptor, static_cast<int>(paths_.size()) - 1};
}

Event IoQueue::push(std::span<const IoRequest> requests) {
  for (const IoRequest& request : requests) check_request(request, paths_.size());
  auto submission = std::make_shared<IoSubmission>();
  for (const IoRequest& request : requests) {
    if (request.memory.empty()) continue;
    submission->pieces_left += (request.memory.size() + block_bytes_ - 1) / block_bytes_;
    direction(request.kind).waiting.push_back({request, submission});
  }
  return submission->pieces_left == 0 ? Event() : submission->done.event();
}

bool IoQueue::take(IoPiece& piece) {
  if (!has_waiting()) return false;
  const bool read =
      writes_.waiting.empty() || (!reads_.waiting.empty() && reads_.under_way <= writes_.under_way);
  Direction& from = read ? reads_ : writes_;
  Transfer& transfer = from.waiting.front();
  IoRequest& rest = transfer.rest;
  const std::size_t bytes = std::min(block_bytes_, rest.memory.size());
  piece = IoPiece{.kind = rest.kind,
                  .file = rest.file,
                  .offset = rest.offset,
                  .memory = rest.memory.first(bytes),
                  .bytes = bytes,
                  .fruitless_attempts = 0,
                  .system_error = 0,
                  .submission = transfer.submission};
  rest.offset += bytes;
  rest.memory = rest.memory.subspan(bytes);
  if (rest.memory.empty()) from.waiting.pop_front();
  if (from.under_way++ == 0) from.busy_since = Clock::now();
  return true;
}

void IoQueue::finish(const IoPiece& piece, IoPiece::Outcome outcome) {
  Direction& from = direction(piece.kind);
  from.bytes += piece.bytes - piece.memory.size();
  if (--from.under_way == 0) {
    from.busy_seconds += std::chrono::duration<double>(Clock::now() - from.busy_since).count();
  }
  IoSubmission& submission = *piece.submission;
  if (outcome == IoPiece::Outcome::kFailed && !submission.failure) {
    submission.failure = describe_failure(piece);
  }
  if (--submission.pieces_left > 0) return;
  if (submission.failure) {
    submission.done.fail(submission.failure);
  } else {
    submission.done.complete();
  }
}

double IoQueue::Direction::seconds(Clock::time_point now) const {
  if (under_way == 0) return busy_seconds;
  return busy_seconds + std::chrono::duration<double>(now - busy_since).count();
}

IoCounters IoQueue::counters() const {
  const Clock::time_point now = Clock::now();
  return {reads_.bytes, writes_.bytes, reads_.seconds(now), writes_.seconds(now)};
}

std::exception_ptr IoQueue::describe_failure(const IoPiece& piece) const {
  const bool read = piece.kind == IoRequest::Kind::kRead;
  std::string what =
      fmt::format("{} of {} bytes failed", read ? "read" : "write", piece.memory.size());
  if (read && piece.system_error == 0) what += ", the file ends before that";
  return std::make_exception_ptr(IoError(what, paths_[static_cast<std::size_t>(piece.file.index)],
                                         piece.offset, piece.system_error));
}

}  // namespace strata
