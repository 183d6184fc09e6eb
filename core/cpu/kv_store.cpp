// Tokens on their way into pages.
#include <cstring>

#include "core/cpu/kv_lines.h"
#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

/// A group of one token's elements: value i times the scale is its element, less the zero point.
struct QuantizedGroup {
  bf16 scale;
  std::uint8_t zero = 0;
  std::uint8_t values[kGroupNumel] = {};
};

/// Nearest whole number, halves to even. @pre |value| < 2^22
[[gnu::always_inline]] inline float nearest(float value) {
  constexpr float kBias = 12582912.0f;  // 1.5 * 2^23
  return value + kBias - kBias;
}
/// Within [low, high]; low for NaN.
[[gnu::always_inline]] inline float within(float value, float low, float high) {
  const float raised = value > low ? value : low;
  return raised < high ? raised : high;
}

/// The least bf16 that is not below `value`; NaN unless it is finite. @pre value >= 0
[[gnu::always_inline]] inline bf16 scale_from(float value, bool finite) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  bf16 scale;
  scale.bits = static_cast<std::uint16_t>(finite ? (word + 0xffffu) >> 16 : 0x7fc0u);
  return scale;
}

/// The values of core/group_quantization.h.
template <typename T>
STRATA_MULTIVERSION void quantize_group(const T* __restrict from, std::int64_t count, Dtype dtype,
                                        QuantizedGroup& to) {
  float elements[kGroupNumel];
  float least = 0, largest = 0;  // the range holds zero, which is then exact
  float not_finite = 0;          // NaN, if any
  for (std::int64_t i = 0; i < count; ++i) elements[i] = load(from[i]);
  for (std::int64_t i = 0; i < count; ++i) {
    least = least < elements[i] ? least : elements[i];
    largest = largest > elements[i] ? largest : elements[i];
    not_finite += elements[i] * 0.0f;
  }
  const bool finite = not_finite == 0.0f;
  const bool q8 = dtype == Dtype::kQ8;
  const float magnitude = largest > -least ? largest : -least;
  to.scale = scale_from(q8 ? magnitude / 127.0f : largest / 15.0f - least / 15.0f, finite);
  const float step = load(to.scale);
  const float divisor = step > 0.0f ? step : 1.0f;  // all are zero, or nothing matters
  const float zero = q8 ? 128.0f : within(nearest(-least / divisor), 0.0f, 15.0f);
  to.zero = static_cast<std::uint8_t>(zero);
  const float low = q8 ? 1.0f : 0.0f, high = q8 ? 255.0f : 15.0f;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = within(nearest(elements[i] / divisor) + zero, low, high);
    to.values[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
  }
}

void put_half(std::byte& pair, bool high, std::uint8_t value) {
  pair = high ? (pair & std::byte{0x0f}) | std::byte(static_cast<std::uint8_t>(value << 4))
              : (pair & std::byte{0xf0}) | std::byte{value};
}

/// Element `index` of a line; `whole`: of kGroupNumel, as PagedKv says.
void put_value(Dtype dtype, bool whole, std::byte* line, std::int64_t index, std::uint8_t value) {
  const std::int64_t vector = index / kLanes, lane = index % kLanes;
  if (dtype == Dtype::kQ8) {
    line[whole ? 4 * lane + vector : index] = std::byte{value};
  } else if (whole) {
    put_half(line[4 * (lane % 8) + vector], lane >= 8, value);
  } else {
    put_half(line[lane], vector == 1, value);
  }
}

void put_scale(const KvHeadLayout& layout, const QuantizedGroup& group, std::int64_t at,
               std::size_t scales, std::size_t zeros, std::byte* head) {
  reinterpret_cast<bf16*>(head + scales)[at] = group.scale;
  if (layout.dtype == Dtype::kQ4)
    head[zeros + static_cast<std::size_t>(at)] = std::byte{group.zero};
}

template <typename T>
void store_quantized(const KvHeadLayout& layout, const T* key, const T* value, std::int64_t place,
                     std::byte* head) {
  const std::size_t key_line = KvHeadLayout::line_bytes(layout.dtype, kPageTokens);
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    const std::int64_t first = g * kGroupNumel, count = layout.group_elements(g);
    const std::int64_t at = g * kPageTokens + place;
    QuantizedGroup group;
    quantize_group(key + first, count, layout.dtype, group);
    put_scale(layout, group, at, layout.key_scales, layout.key_zeros, head);
    for (std::int64_t i = 0; i < count; ++i) {
      std::byte* line = head + static_cast<std::size_t>(first + i) * key_line;
      put_value(layout.dtype, true, line, place, group.values[i]);
    }
    group = {};
    quantize_group(value + first, count, layout.dtype, group);
    put_scale(layout, group, at, layout.value_scales, layout.value_zeros, head);
    const std::size_t bytes = KvHeadLayout::line_bytes(layout.dtype, count);
    std::byte* line = head + layout.values_of(g) + static_cast<std::size_t>(place) * bytes;
    std::memset(line, 0, bytes);
    const bool whole = bytes == KvHeadLayout::line_bytes(layout.dtype, kGroupNumel);
    for (std::int64_t i = 0; i < count; ++i)
      put_value(layout.dtype, whole, line, i, group.values[i]);
  }
}

template <typename T, typename C>
STRATA_MULTIVERSION void convert(const T* __restrict from, C* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], load(from[i]));
}

template <typename C, typename T>
void store_plain(const KvHeadLayout& layout, const T* key, const T* value, std::int64_t place,
                 std::byte* head) {
  C* keys = reinterpret_cast<C*>(head) + place;
  for (std::int64_t d = 0; d < layout.head_size; ++d) store(keys[d * kPageTokens], load(key[d]));
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    const std::int64_t count = layout.group_elements(g);
    const std::size_t bytes = KvHeadLayout::line_bytes(layout.dtype, count);
    std::byte* line = head + layout.values_of(g) + static_cast<std::size_t>(place) * bytes;
    std::memset(line, 0, bytes);
    convert(value + g * kGroupNumel, reinterpret_cast<C*>(line), count);
  }
}

}  // namespace

template <typename T>
void store_kv_token(const KvHeadLayout& layout, const T* key, const T* value, std::int64_t place,
                    std::byte* head) {
  if (is_quantized(layout.dtype)) {
    store_quantized(layout, key, value, place, head);
  } else if (layout.dtype == Dtype::kF32) {
    store_plain<float>(layout, key, value, place, head);
  } else {
    store_plain<bf16>(layout, key, value, place, head);
  }
}

template void store_kv_token(const KvHeadLayout&, const float*, const float*, std::int64_t,
                             std::byte*);
template void store_kv_token(const KvHeadLayout&, const bf16*, const bf16*, std::int64_t,
                             std::byte*);
template void store_kv_token(const KvHeadLayout&, const f16*, const f16*, std::int64_t, std::byte*);

}  // namespace strata::cpu
