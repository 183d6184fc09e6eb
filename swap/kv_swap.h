#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "swap/kv_cache.h"
#include "swap/swap_file.h"

namespace strata {

/// Keys and values of sequences that wait, in pages on drives. Whole sequences go and come; a page
/// of all layers is one transfer. One thread at a time, as the cache.
class KvSwap {
 public:
  /// What a sequence left. Belongs to the KvSwap that made it.
  struct Stored {
    std::int64_t tokens = 0;
    std::vector<std::int32_t> slots = {};  ///< of the space, page by page
  };

  /// Host memory that transfers go through.
  static std::size_t staging_bytes(const KvShape& shape);
  /// Bytes of the space that hold so many bytes of pages, whole ones.
  static std::uint64_t space_bytes(const KvShape& shape, std::uint64_t bytes);

  /// @param cache borrowed, outlives the object. @param space of space_bytes()
  KvSwap(KvCache& cache, const KvShape& shape, std::unique_ptr<SwapSpace> space);
  ~KvSwap();  ///< waits for transfers

  int free_pages() const noexcept { return static_cast<int>(free_.size()); }
  /// Writes the pages of the sequence's first `tokens` tokens, which it has all of; blocks until
  /// the cache may change. @return none where there is no room. @throws IoError
  std::optional<Stored> store(KvCache::Id id, std::int64_t tokens);
  /// Reads them into the pages of a sequence that was grown for them, and forgets them; blocks.
  /// @throws IoError
  void load(const Stored& stored, KvCache::Id id);
  void drop(const Stored& stored);

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
