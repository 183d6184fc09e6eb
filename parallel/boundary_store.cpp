#include "parallel/boundary_store.h"

#include <algorithm>

#include "core/units.h"

namespace strata {

std::size_t BoundaryStore::Shape::tensor_bytes() const {
  const std::size_t bytes = static_cast<std::size_t>(tokens * hidden) * size_bytes(dtype);
  return round_up(bytes, kIoAlignment);
}

int BoundaryStore::Shape::tensors() const {
  // Passing boundaries follow each other through the memory of one.
  return (boundaries - std::max(0, passing - 1)) * micro_batches;
}

std::size_t BoundaryStore::memory_bytes(const Shape& shape) {
  return shape.tensor_bytes() * static_cast<std::size_t>(shape.tensors());
}

std::uint64_t BoundaryStore::swap_bytes(const Shape& shape) {
  // The last boundary never leaves memory.
  return std::uint64_t{shape.tensor_bytes()} *
         static_cast<std::uint64_t>(std::max(0, shape.boundaries - shape.passing - 1) *
                                    shape.micro_batches);
}

BoundaryStore::BoundaryStore(const Shape& shape, std::span<std::byte> memory)
    : shape_(shape),
      slots_(static_cast<std::size_t>(shape.tensors())),
      places_(static_cast<std::size_t>(shape.boundaries * shape.micro_batches)) {
  expects(memory.size() >= memory_bytes(shape), "the memory does not hold all boundaries");
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].memory = memory.subspan(i * shape.tensor_bytes(), shape.tensor_bytes());
  }
  const std::size_t shared = places_.size() - slots_.size();
  for (std::size_t i = 0; i < places_.size(); ++i) {
    places_[i].slot = static_cast<int>(
        i < shared ? i % static_cast<std::size_t>(shape.micro_batches) : i - shared);
  }
}

BoundaryStore::BoundaryStore(const Shape& shape, std::span<std::byte> memory, int slots,
                             SwapSpace& swap, LaneClock& clock)
    : shape_(shape),
      slots_(static_cast<std::size_t>(slots)),
      swap_(&swap),
      clock_(&clock),
      places_(static_cast<std::size_t>(shape.boundaries * shape.micro_batches)) {
  expects(slots >= least_slots(shape), "too few slots for boundaries on swap");
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].memory = memory.subspan(i * shape.tensor_bytes(), shape.tensor_bytes());
  }
}

BoundaryStore::Place& BoundaryStore::place(int boundary, int micro_batch) {
  return places_.at(static_cast<std::size_t>(boundary * shape_.micro_batches + micro_batch));
}

std::uint64_t BoundaryStore::offset(int boundary, int micro_batch) const {
  return std::uint64_t{shape_.tensor_bytes()} *
         static_cast<std::uint64_t>((boundary - shape_.passing) * shape_.micro_batches +
                                    micro_batch);
}

TensorView BoundaryStore::view(std::span<std::byte> memory) const {
  return {memory.data(), shape_.dtype, {shape_.tokens, shape_.hidden}};
}

int BoundaryStore::written() const {
  return (shape_.boundaries - shape_.passing - 1) * shape_.micro_batches;
}

void BoundaryStore::begin(bool keep) {
  keep_ = keep;
  if (swap_ == nullptr) return;
  unread_ = -1;
  for (Slot& slot : slots_) slot.taken = false;
  std::ranges::fill(places_, Place());
}

int BoundaryStore::free_slot() {
  auto found = std::ranges::find_if(slots_, &Slot::idle);
  if (found == slots_.end()) {
    found = std::ranges::find_if(slots_, [](const Slot& slot) { return !slot.taken; });
    expects(found != slots_.end(), "all boundary slots are in use");
    const LaneClock::Span span(*clock_, LaneTime::kWriteWait, TraceLane::kStep, "wait for boundary",
                               -1);
    found->written.wait();
    found->last_use.wait();
  }
  return static_cast<int>(found - slots_.begin());
}

TensorView BoundaryStore::output(int boundary, int micro_batch) {
  Place& home = place(boundary, micro_batch);
  if (swap_ != nullptr) {
    home = {.slot = free_slot(), .ready = {}};
    slots_[static_cast<std::size_t>(home.slot)].taken = true;
  }
  return view(slots_[static_cast<std::size_t>(home.slot)].memory);
}

void BoundaryStore::finish_output(int boundary, int micro_batch, Stream& compute) {
  const bool last = boundary == shape_.boundaries - 1;
  if (swap_ == nullptr || !keep_ || last || boundary < shape_.passing) return;
  compute.synchronize();
  Slot& slot = slots_[static_cast<std::size_t>(place(boundary, micro_batch).slot)];
  slot.written = swap_->write(offset(boundary, micro_batch), slot.memory);
}

TensorView BoundaryStore::input(int boundary, int micro_batch) {
  Place& home = place(boundary, micro_batch);
  if (swap_ != nullptr) {
    while (home.slot < 0) {
      expects(unread_ > 0, "a boundary is asked for out of order");
      read_next(free_slot());
    }
    const LaneClock::Span span(*clock_, LaneTime::kReadWait, TraceLane::kStep, "wait for boundary",
                               boundary);
    home.ready.wait();
  }
  return view(slots_[static_cast<std::size_t>(home.slot)].memory);
}

void BoundaryStore::drop(int boundary, int micro_batch, Stream& compute) {
  if (swap_ == nullptr) return;
  Place& home = place(boundary, micro_batch);
  if (keep_ && boundary == shape_.boundaries - 1 && unread_ < 0) {
    // The turn: the backward phase begins, and reading back with it.
    unread_ = written();
  }
  Slot& slot = slots_[static_cast<std::size_t>(home.slot)];
  slot.taken = false;
  slot.last_use = compute.record();
  home = {};
  if (unread_ >= 0) read_ahead();
}

void BoundaryStore::read_ahead() {
  while (unread_ > 0) {
    const auto found = std::ranges::find_if(slots_, &Slot::idle);
    if (found == slots_.end()) return;
    read_next(static_cast<int>(found - slots_.begin()));
  }
}

/// Descending boundaries, ascending micro-batches within one.
void BoundaryStore::read_next(int slot) {
  const int done = written() - unread_;
  const int boundary = shape_.boundaries - 2 - done / shape_.micro_batches;
  const int micro_batch = done % shape_.micro_batches;
  Slot& home = slots_[static_cast<std::size_t>(slot)];
  home.taken = true;
  place(boundary, micro_batch) = {.slot = slot,
                                  .ready = swap_->read(offset(boundary, micro_batch), home.memory)};
  --unread_;
}

}  // namespace strata
