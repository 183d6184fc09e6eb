#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/device.h"
#include "swap/kv_cache.h"
#include "swap/swap_file.h"

namespace strata {

/// Keys and values that wait, in pages on drives. A page of all layers is one transfer, and its
/// place there a slot. One thread at a time, as the cache.
class KvSwap {
 public:
  /// Host memory that transfers go through.
  static std::size_t staging_bytes(const KvShape& shape);
  /// Bytes of the space that hold so many bytes of pages, whole ones.
  static std::uint64_t space_bytes(const KvShape& shape, std::uint64_t bytes);

  /// @param cache borrowed, outlives the object. @param space of space_bytes()
  KvSwap(KvCache& cache, const KvShape& shape, std::unique_ptr<SwapSpace> space);
  ~KvSwap();  ///< waits for transfers

  std::size_t free_slots() const noexcept { return free_.size(); }
  /// Writes these pages of the cache; blocks until the cache may change.
  /// @return their slots, in the same order. @pre as many are free. @throws IoError
  std::vector<std::int32_t> store(std::span<const std::int32_t> pages);
  /// Reads slots into as many pages of the cache; they stay. Blocks. @throws IoError
  void load(std::span<const std::int32_t> slots, std::span<const std::int32_t> pages);
  void drop(std::span<const std::int32_t> slots);

 private:
  void copy(std::int32_t page, std::byte* staged, bool to_cache) const;
  std::span<std::byte> staged(std::size_t index) const;

  KvCache& cache_;
  int layers_;
  std::size_t slot_bytes_;
  Buffer staging_;
  std::vector<Event> written_;  // by piece of staging memory: its last write
  std::unique_ptr<SwapSpace> space_;
  std::vector<std::int32_t> free_;
};

}  // namespace strata
