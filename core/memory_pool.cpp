#include "core/memory_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace strata {

RangeAllocator::RangeAllocator(std::size_t capacity, std::size_t alignment)
    : capacity_(capacity), alignment_(alignment) {}

std::optional<std::size_t> RangeAllocator::allocate(std::size_t bytes) {
  const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), alignment_);
  std::size_t gap = 0;
  for (const auto& [offset, taken] : ranges_) {
    if (offset - gap >= size) break;
    gap = offset + taken;
  }
  if (gap > capacity_ || capacity_ - gap < size) return std::nullopt;
  ranges_.emplace(gap, size);
  taken_ += size;
  peak_ = std::max(peak_, gap + size);
  return gap;
}

void RangeAllocator::release(std::size_t offset) {
  const auto found = ranges_.find(offset);
  expects(found != ranges_.end(), "a range is released that was not taken");
  taken_ -= found->second;
  ranges_.erase(found);
}

PoolBlock& PoolBlock::operator=(PoolBlock&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    offset_ = other.offset_;
    memory_ = std::exchange(other.memory_, {});
  }
  return *this;
}

void PoolBlock::reset() noexcept {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->release(offset_);
  memory_ = {};
}

MemoryPool::MemoryPool(std::span<std::byte> memory)
    : memory_(memory), ranges_(memory.size(), kAlignment) {}

PoolBlock MemoryPool::acquire(std::size_t bytes) {
  if (round_up(bytes, kAlignment) > capacity()) {
    throw Error(fmt::format("a buffer of {} bytes was asked from a pool of {}", bytes, capacity()));
  }
  std::unique_lock lock(mutex_);
  const std::uint64_t ticket = next_ticket_++;
  std::optional<std::size_t> offset;
  changed_.wait(lock, [&] {
    return closed_ || (serving_ == ticket && (offset = ranges_.allocate(bytes)).has_value());
  });
  if (!offset) throw Error("the pipeline was closed while it waited for a buffer");
  ++serving_;
  changed_.notify_all();
  return {this, *offset, memory_.subspan(*offset, bytes)};
}

void MemoryPool::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void MemoryPool::release(std::size_t offset) {
  const std::lock_guard lock(mutex_);
  ranges_.release(offset);
  changed_.notify_all();
}

}  // namespace strata
