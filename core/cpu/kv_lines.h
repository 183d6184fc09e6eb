#pragma once

#include <cstddef>
#include <cstdint>

#include "core/paged_kv.h"

// What attention does with the pages of keys and values, whatever they are kept in, on any
// processor. A line is one element of all the page's keys, or a group of one value's elements.
//
// The scale of a quantised group stays outside: lines are added up as the whole numbers they hold,
// which floats hold exactly, less the zero point. So a sum has the same bits whether it was made
// here, in registers, or from decoded lines.

namespace strata::cpu {

/// Lines [begin, end) of one group of one head, as they lie in a page.
struct KvLines {
  const std::byte* data = nullptr;  ///< of the bundle of line 0
  Dtype dtype = Dtype::kBf16;
  std::int64_t elements = 0;  ///< of a line; at most kGroupNumel
  std::int64_t begin = 0;
  std::int64_t end = 0;
  const std::uint8_t* zeros = nullptr;  ///< kQ4: zero points
  bool zero_per_line = false;           ///< a zero point for each line, else for each element
  std::ptrdiff_t ahead = 0;  ///< lines this many bytes behind those in use will be wanted next
};

/// Keys and values of one head in one page.
class KvPage {
 public:
  /// @param next the head in the page that will be wanted after this
  KvPage(const KvHeadLayout& layout, const std::byte* head, const std::byte* next)
      : layout_(layout), head_(head), ahead_(next - head) {}

  const std::byte* head() const { return head_; }
  /// From the head to the one that will be wanted next.
  std::ptrdiff_t ahead() const { return ahead_; }
  /// Lines are the elements of the group, for all tokens.
  KvLines keys(std::int64_t group) const;
  /// Lines are tokens, each with the elements of the group.
  KvLines values(std::int64_t group, std::int64_t begin, std::int64_t end) const;
  /// [kPageTokens], in kQ8 and kQ4.
  const bf16* key_scales(std::int64_t group) const { return scales(layout_.key_scales, group); }
  const bf16* value_scales(std::int64_t group) const { return scales(layout_.value_scales, group); }

 private:
  const std::uint8_t* zeros(std::size_t offset, std::int64_t group) const {
    if (layout_.dtype != Dtype::kQ4) return nullptr;
    return reinterpret_cast<const std::uint8_t*>(head_ + offset) + group * kPageTokens;
  }
  const bf16* scales(std::size_t offset, std::int64_t group) const {
    return reinterpret_cast<const bf16*>(head_ + offset) + group * kPageTokens;
  }

  const KvHeadLayout& layout_;
  const std::byte* head_;
  std::ptrdiff_t ahead_;
};

/// sums[row, i] += sum over lines, in order, of factors[row, line] lines[line, i]. Strides are
/// floats. Sums have room for whole vectors: kGroupNumel floats a row always are.
void add_kv_lines(const KvLines& lines, const float* factors, std::int64_t factor_stride,
                  std::int64_t rows, float* sums, std::int64_t sum_stride);

/// to[line, i] = lines[line, i], without the scale, in whole vectors.
void decode_kv_lines(const KvLines& lines, float* to, std::int64_t stride);

/// Writes token `place` of a head: key and value [D], of fp32, bf16 or fp16. Quantises where the
/// page is quantised; a group with a number that is not finite gets a scale that is none either.
template <typename T>
void store_kv_token(const KvHeadLayout& layout, const T* key, const T* value, std::int64_t place,
                    std::byte* head);

}  // namespace strata::cpu
