#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace strata {

/// Tokens of a page. A constant: it decides the order of additions in attention.
inline constexpr std::int64_t kPageTokens = 64;

/// One key/value head of a page: where its parts lie, in bytes from its begin. A head is taken in
/// groups of kGroupNumel elements, the last of which may be shorter.
///
/// Lines are what attention adds up: an element of all the page's keys, or a group of elements of
/// one value. Neighbours lie in bundles: for each element 4 bytes that hold it of all the bundle's
/// lines, so that what multiplies pairs of bf16, or fours of bytes, finds them side by side.
///
///     keys    by bundle of elements: [kPageTokens, 4 bytes]
///     values  by group, by bundle of tokens: [elements of the group, rounded up to 16, 4 bytes]
///
/// A bundle is 1 line of fp32, 2 of bf16, 4 of kQ8 or 8 of kQ4, the first in the low bits; of kQ4
/// byte i has line i in its low half and line 4 + i in the high one. Lines beyond D are zeros.
///
/// In kQ8 and kQ4 each group of each token has a scale (bf16), in kQ4 a zero point (uint8), chosen
/// as core/group_quantization.h does:
///
///     key scales, value scales, key zero points, value zero points: [groups, kPageTokens] each
///
/// Numbers are not negative: kQ8's have 128 added.
struct KvHeadLayout {
  KvHeadLayout(Dtype dtype, std::int64_t head_size);

  /// Lines of a bundle.
  static constexpr std::int64_t bundle_lines(Dtype dtype) {
    if (dtype == Dtype::kQ4) return 8;
    return dtype == Dtype::kQ8 ? 4 : 4 / static_cast<std::int64_t>(size_bytes(dtype));
  }
  /// Bytes of a bundle of lines that long.
  static constexpr std::size_t bundle_bytes(std::int64_t elements) {
    return static_cast<std::size_t>((elements + 15) / 16 * 16) * 4;
  }
  std::int64_t group_elements(std::int64_t group) const {
    return std::min(kGroupNumel, head_size - group * kGroupNumel);
  }
  /// Of a group of the keys, and of the values.
  std::size_t keys_of(std::int64_t group) const {
    return static_cast<std::size_t>(group * kGroupNumel / bundle_lines(dtype)) *
           bundle_bytes(kPageTokens);
  }
  std::size_t values_of(std::int64_t group) const {
    return values + static_cast<std::size_t>(group * kPageTokens / bundle_lines(dtype)) *
                        bundle_bytes(kGroupNumel);
  }

  Dtype dtype;
  std::int64_t head_size;  ///< D
  std::int64_t groups;
  std::size_t values;
  std::size_t key_scales = 0;
  std::size_t value_scales = 0;
  std::size_t key_zeros = 0;
  std::size_t value_zeros = 0;
  std::size_t bytes;  ///< of a head, whole cache lines
};

inline KvHeadLayout::KvHeadLayout(Dtype format, std::int64_t size)
    : dtype(format),
      head_size(size),
      groups((size + kGroupNumel - 1) / kGroupNumel),
      values(static_cast<std::size_t>((size + bundle_lines(format) - 1) / bundle_lines(format)) *
             bundle_bytes(kPageTokens)) {
  constexpr std::size_t kCacheLine = 64;
  std::size_t end =
      values_of(groups - 1) + static_cast<std::size_t>(kPageTokens / bundle_lines(format)) *
                                  bundle_bytes(group_elements(groups - 1));
  const auto take = [&](std::size_t bytes_each) {
    const std::size_t begin = end;
    end += static_cast<std::size_t>(groups * kPageTokens) * bytes_each;
    return begin;
  };
  if (is_quantized(format)) {
    key_scales = take(sizeof(bf16));
    value_scales = take(sizeof(bf16));
  }
  if (format == Dtype::kQ4) {
    key_zeros = take(1);
    value_zeros = take(1);
  }
  bytes = (end + kCacheLine - 1) / kCacheLine * kCacheLine;
}

/// Where the keys and values of one layer lie: in pages of kPageTokens tokens, each for all
/// key/value heads, one after the other.
struct PagedKv {
  std::byte* memory = nullptr;  ///< of page 0
  std::size_t page_stride = 0;  ///< bytes from a page to the next
  Dtype dtype = Dtype::kBf16;   ///< fp32, bf16, kQ8 or kQ4
  std::int64_t kv_heads = 0;    ///< G
  std::int64_t head_size = 0;   ///< D

  std::size_t page_bytes() const {
    return static_cast<std::size_t>(kv_heads) * KvHeadLayout(dtype, head_size).bytes;
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
