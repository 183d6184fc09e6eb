#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace strata {

/// Tokens of a page. A constant: it decides the order of additions in attention.
inline constexpr std::int64_t kPageTokens = 64;

/// Where the keys and values of one layer lie: in pages of kPageTokens tokens, each for all
/// key/value heads.
///
///     page   G times: keys [D, kPageTokens], values [kPageTokens, D]
///
/// Keys lie transposed, so that scores of many keys come from whole vectors.
struct PagedKv {
  std::byte* memory = nullptr;  ///< of page 0
  std::size_t page_stride = 0;  ///< bytes from a page to the next
  Dtype dtype = Dtype::kBf16;   ///< fp32 or bf16
  std::int64_t kv_heads = 0;    ///< G
  std::int64_t head_size = 0;   ///< D

  std::size_t page_bytes() const {
    return 2 * static_cast<std::size_t>(kv_heads * head_size * kPageTokens) * size_bytes(dtype);
  }
};

/// Rows of a batch that continue one sequence.
struct SequenceRows {
  std::int64_t row = 0;       ///< of the batch, the first of them
  std::int64_t rows = 0;      ///< one after the other
  std::int64_t position = 0;  ///< of the first row's token in its sequence
  /// Token t lies in page pages[t / kPageTokens]. Pages that no row sees may be anything.
  std::span<const std::int32_t> pages;
};

}  // namespace strata
