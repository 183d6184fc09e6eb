#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/memory_pool.h"
#include "swap/section.h"
#include "swap/swap_file.h"

namespace strata {

/// What one rank keeps: the sizes of its shards and of their elements.
struct ShardLayout {
  std::vector<std::int64_t> shard_numel;  ///< by block; multiples of 2048
  std::vector<bool> frozen = {};          ///< by block; empty: none is
  /// 0: the section is not kept.
  std::array<std::size_t, kSectionCount> element_bytes{2, 2, 4, 4, 2, 2};

  bool is_frozen(int block) const {
    return !frozen.empty() && frozen.at(static_cast<std::size_t>(block));
  }
  /// The section that a bf16 product reads, and others too: with lo, unless frozen.
  SectionKey weights(int block) const {
    return {block, is_frozen(block) ? Section::kWeights : Section::kHi};
  }
  /// Bytes of one element: 0 where the shard has no such section.
  std::size_t element(SectionKey key) const;
  std::size_t bytes(SectionKey key) const;
  std::size_t total_bytes() const;
};

/// Which sections lie in DRAM from start to end. The rest is on swap. A fixed set: training and
/// generation visit blocks in a known order, for which replacing by recency is the worst choice.
class Residency {
 public:
  explicit Residency(int blocks, bool all = false);
  bool resident(SectionKey key) const { return bits_.at(index(key)); }
  void set(SectionKey key, bool resident) { bits_.at(index(key)) = resident; }
  int blocks() const noexcept { return static_cast<int>(bits_.size()) / kSectionCount; }

 private:
  static std::size_t index(SectionKey key) {
    return static_cast<std::size_t>(key.block * kSectionCount + static_cast<int>(key.section));
  }
  std::vector<bool> bits_;
};

/// Exclusive access to a range of one section in host memory for as long as the object lives.
/// Move-only.
///
/// ready() must have happened before the bytes are used. Changes reach the section by
/// ShardStore::store(); without it, DRAM keeps them and swap does not.
class Lease {
 public:
  Lease() = default;
  std::span<std::byte> memory() const noexcept { return memory_; }
  template <typename T>
  T* as() const noexcept {
    return reinterpret_cast<T*>(memory_.data());
  }
  const Event& ready() const noexcept { return ready_; }
  explicit operator bool() const noexcept { return memory_.data() != nullptr; }

 private:
  friend class ShardStore;
  SectionKey key_;
  std::uint64_t offset_ = 0;  // bytes into the section
  std::span<std::byte> memory_;
  PoolBlock block_;  // holds memory_ unless it is resident or the caller's
  Event ready_;
};

/// Where this rank's sections rest. Resident ones are host memory; the others lie in one contiguous
/// extent per block, sections one after the other at multiples of 64 KiB. The contents start as
/// zeros.
///
/// Ranges are in elements, multiples of 2048 except at a section's end. Thread-safe; two leases of
/// overlapping ranges at a time are the caller's mistake.
class ShardStore {
 public:
  /// Makes the swap space for `bytes`, when it turns out that any is needed.
  using MakeSwapSpace = std::function<std::unique_ptr<SwapSpace>(std::uint64_t bytes)>;
  ShardStore(ShardLayout layout, Residency residency, const MakeSwapSpace& make_swap_space);

  static constexpr std::uint64_t kExtentAlignment = 64 << 10;  ///< bytes; of extents and sections
  /// Bytes of swap that a rank needs for the sections that are not resident.
  static std::uint64_t swap_bytes(const ShardLayout& layout, const Residency& residency);

  const ShardLayout& layout() const noexcept { return layout_; }
  bool resident(SectionKey key) const { return residency_.resident(key); }
  bool keeps(SectionKey key) const { return layout_.bytes(key) > 0; }
  /// The whole of a resident section. @pre resident(key)
  std::span<std::byte> memory(SectionKey key) const;

  /// Where a resident section lies, or a copy of what was stored last, read into a piece of `pool`:
  /// may block until the pool has room.
  Lease fetch(SectionKey key, std::int64_t begin, std::int64_t numel, MemoryPool& pool);
  /// Reads into the caller's memory, resident or not; aligned to 4096, alive as long as the lease.
  Lease fetch_into(SectionKey key, std::int64_t begin, std::int64_t numel,
                   std::span<std::byte> memory);
  /// The caller's memory, which holds the range's current bytes already, as a lease to store()
  /// from.
  Lease adopt(SectionKey key, std::int64_t begin, std::int64_t numel, std::span<std::byte> memory);
  /// A lease whose old content does not matter: nothing is read.
  Lease reserve(SectionKey key, std::int64_t begin, std::int64_t numel, MemoryPool& pool);
  /// Starts to make the lease's bytes the section's. They must not change until the event happens;
  /// a later fetch sees them either way.
  Event store(const Lease& lease);

  const SwapSpace* swap_space() const noexcept { return swap_space_.get(); }

 private:
  Lease lease(SectionKey key, std::int64_t begin, std::int64_t numel) const;
  std::uint64_t swap_offset(SectionKey key) const;

  ShardLayout layout_;
  Residency residency_;
  std::vector<std::uint64_t>
      extents_;                   // [block * kSectionCount + section], bytes into the swap space
  std::vector<Buffer> resident_;  // the same index; empty where not resident
  std::unique_ptr<SwapSpace> swap_space_;
};

}  // namespace strata
