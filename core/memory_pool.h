#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>

namespace strata {

/// Keeps track of which ranges of [0, capacity) are taken. Holds no memory itself. First fit, so
/// the same sequence of calls always gives the same offsets. Not thread-safe.
class RangeAllocator {
 public:
  /// @param alignment of every offset, a power of two
  RangeAllocator(std::size_t capacity, std::size_t alignment);

  std::optional<std::size_t> allocate(std::size_t bytes);  ///< empty when no gap is wide enough
  void release(std::size_t offset);                        ///< @pre offset came from allocate()

  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t taken() const noexcept { return taken_; }
  /// End of the highest range that was ever taken: what a memory for this sequence of calls needs.
  std::size_t peak() const noexcept { return peak_; }

 private:
  std::size_t capacity_;
  std::size_t alignment_;
  std::size_t taken_ = 0;
  std::size_t peak_ = 0;
  std::map<std::size_t, std::size_t> ranges_;  // offset -> bytes, of what is taken
};

class MemoryPool;

/// A piece of a pool, given back when it is destroyed. Move-only.
class PoolBlock {
 public:
  PoolBlock() = default;
  PoolBlock(MemoryPool* pool, std::size_t offset, std::span<std::byte> memory)
      : pool_(pool), offset_(offset), memory_(memory) {}
  PoolBlock(PoolBlock&& other) noexcept { *this = static_cast<PoolBlock&&>(other); }
  PoolBlock& operator=(PoolBlock&& other) noexcept;
  PoolBlock(const PoolBlock&) = delete;
  PoolBlock& operator=(const PoolBlock&) = delete;
  ~PoolBlock() { reset(); }

  std::span<std::byte> memory() const noexcept { return memory_; }
  explicit operator bool() const noexcept { return pool_ != nullptr; }
  void reset() noexcept;

 private:
  MemoryPool* pool_ = nullptr;
  std::size_t offset_ = 0;
  std::span<std::byte> memory_;
};

/// A byte arena of fixed size that belongs to one pipeline. acquire() waits, in the order of the
/// calls, until there is room; pieces may be given back by any thread. Sized at construction for
/// the largest request, so a pipeline that releases what it took cannot deadlock. Thread-safe.
class MemoryPool {
 public:
  static constexpr std::size_t kAlignment = 4096;

  /// @param memory kAlignment-aligned; belongs to the caller and outlives the pool and its pieces
  explicit MemoryPool(std::span<std::byte> memory);

  /// Blocks until `bytes` are free and every earlier caller was served.
  /// @throws Error if the request is larger than the pool, or after close()
  PoolBlock acquire(std::size_t bytes);
  /// Makes waiting and later acquire() calls throw, so that lanes can end after a failure.
  void close();

  std::size_t capacity() const noexcept { return memory_.size(); }

 private:
  friend class PoolBlock;
  void release(std::size_t offset);

  std::span<std::byte> memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  RangeAllocator ranges_;          // guarded by mutex_
  std::uint64_t next_ticket_ = 0;  // guarded by mutex_
  std::uint64_t serving_ = 0;      // guarded by mutex_
  bool closed_ = false;            // guarded by mutex_
};

}  // namespace strata
