#pragma once

#include <span>

#include "core/error.h"
#include "core/paged_kv.h"

// What appending to pages and attending over them share.

namespace strata::cpu {

/// Where a head of a page begins.
inline std::byte* head_of(const PagedKv& kv, const KvHeadLayout& layout, std::int32_t page,
                          std::int64_t kv_head) {
  return kv.memory + static_cast<std::size_t>(page) * kv.page_stride +
         static_cast<std::size_t>(kv_head) * layout.bytes;
}

inline void expect_pages(std::span<const SequenceRows> sequences, std::int64_t rows) {
  for (const SequenceRows& sequence : sequences) {
    const std::int64_t end = sequence.position + sequence.rows;
    expects(sequence.rows >= 0 && sequence.position >= 0 && sequence.row >= 0 &&
                sequence.row + sequence.rows <= rows,
            "the rows of a sequence lie outside the batch");
    expects(end <= static_cast<std::int64_t>(sequence.pages.size()) * kPageTokens,
            "a sequence has more tokens than its pages hold");
  }
}

inline void expect_format(const PagedKv& kv) {
  expects(kv.dtype == Dtype::kF32 || kv.dtype == Dtype::kBf16 || is_quantized(kv.dtype),
          "keys and values are kept in fp32, bf16, q8 or q4");
}

}  // namespace strata::cpu
