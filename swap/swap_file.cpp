#include "swap/swap_file.h"

#include <algorithm>

#include "core/error.h"
#include "core/units.h"

namespace strata {
namespace {

std::vector<double> weights_of(std::span<const SwapDirectory> directories) {
  if (directories.empty()) {
    throw UsageError("swapping needs at least one directory; name one with --swap");
  }
  std::vector<double> weights;
  for (const SwapDirectory& directory : directories) weights.push_back(directory.weight);
  return weights;
}

/// The failure of a transfer that has ended, if it failed.
std::exception_ptr failure_of(const Event& event) {
  try {
    event.wait();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

}  // namespace

SwapSpace::SwapSpace(IoEngine& engine, std::span<const SwapDirectory> directories,
                     std::uint64_t bytes)
    : engine_(engine), bytes_(round_up(bytes, kIoAlignment)), map_(weights_of(directories)) {
  for (std::size_t i = 0; i < directories.size(); ++i) {
    const ScratchFile& file = files_.emplace_back(directories[i].path, map_.file_bytes(i, bytes_));
    warnings_.insert(warnings_.end(), file.warnings().begin(), file.warnings().end());
  }
  for (const ScratchFile& file : files_) {
    handles_.push_back(engine_.open_file(file.descriptor(), file.path()));
  }
}

SwapSpace::~SwapSpace() {
  for (const Pending& pending : pending_) failure_of(pending.event);
}

Event SwapSpace::read(std::uint64_t offset, std::span<std::byte> memory) {
  return transfer(IoRequest::Kind::kRead, offset, memory);
}

Event SwapSpace::write(std::uint64_t offset, std::span<const std::byte> memory) {
  // An engine only reads the memory of a write.
  return transfer(IoRequest::Kind::kWrite, offset,
                  {const_cast<std::byte*>(memory.data()), memory.size()});
}

Event SwapSpace::transfer(IoRequest::Kind kind, std::uint64_t offset, std::span<std::byte> memory) {
  expects(offset <= bytes_ && memory.size() <= bytes_ - offset,
          "a transfer must lie inside the swap space");
  const std::vector<IoRequest> requests = cut(kind, offset, memory);
  Pending wanted{kind, offset, offset + memory.size(), {}};
  std::unique_lock lock(mutex_);
  for (;;) {
    forget_finished();
    if (lost_write_) std::rethrow_exception(lost_write_);
    const Pending* conflict = find_conflict(wanted);
    if (conflict == nullptr) break;
    const Event event = conflict->event;
    lock.unlock();
    failure_of(event);  // belongs to whoever waits for that event; forget_finished() looks too
    lock.lock();
  }
  wanted.event = engine_.submit(requests);
  pending_.push_back(wanted);
  return wanted.event;
}

std::vector<IoRequest> SwapSpace::cut(IoRequest::Kind kind, std::uint64_t offset,
                                      std::span<std::byte> memory) const {
  std::vector<IoRequest> requests;
  for (const StripeRun& run : map_.map(offset, memory.size())) {
    requests.push_back({kind, handles_[run.file], run.offset, memory.first(run.bytes)});
    memory = memory.subspan(run.bytes);
  }
  return requests;
}

/// @pre mutex_ is held
const SwapSpace::Pending* SwapSpace::find_conflict(const Pending& wanted) const {
  const auto found = std::find_if(pending_.begin(), pending_.end(), [&](const Pending& other) {
    const bool one_writes =
        wanted.kind == IoRequest::Kind::kWrite || other.kind == IoRequest::Kind::kWrite;
    return one_writes && wanted.begin < other.end && other.begin < wanted.end;
  });
  return found == pending_.end() ? nullptr : &*found;
}

/// @pre mutex_ is held
void SwapSpace::forget_finished() {
  std::erase_if(pending_, [this](const Pending& pending) {
    if (!pending.event.ready()) return false;
    remember_failure(pending);
    return true;
  });
}

/// @pre mutex_ is held
void SwapSpace::remember_failure(const Pending& finished) {
  if (finished.kind == IoRequest::Kind::kWrite && !lost_write_) {
    lost_write_ = failure_of(finished.event);
  }
}

}  // namespace strata
