// Tokens on their way into pages.
#include "core/cpu/kv_lines.h"
#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

/// A group of one token's elements as pages hold them. Quantised, value i times the scale is its
/// element, less the zero point.
struct StoredGroup {
  bf16 scale;
  std::uint8_t zero = 0;
  std::uint32_t values[kGroupNumel] = {};
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
                                        StoredGroup& to) {
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
    to.values[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>(value));
  }
}

template <typename T>
STRATA_MULTIVERSION void take_fp32(const T* __restrict from, std::int64_t count,
                                   std::uint32_t* __restrict to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<std::uint32_t>(load(from[i]));
}
template <typename T>
STRATA_MULTIVERSION void take_bf16(const T* __restrict from, std::int64_t count,
                                   std::uint32_t* __restrict to) {
  for (std::int64_t i = 0; i < count; ++i) {
    bf16 value;
    store(value, load(from[i]));
    to[i] = value.bits;
  }
}

template <typename T>
StoredGroup stored_group(const T* from, std::int64_t count, Dtype dtype) {
  StoredGroup group;
  if (is_quantized(dtype)) {
    quantize_group(from, count, dtype, group);
  } else if (dtype == Dtype::kF32) {
    take_fp32(from, count, group.values);
  } else {
    take_bf16(from, count, group.values);
  }
  return group;
}

/// The bits of a line in the words of its bundle.
struct LineBits {
  constexpr LineBits(Dtype dtype, std::int64_t line) {
    const auto width = static_cast<std::uint32_t>(32 / KvHeadLayout::bundle_lines(dtype));
    const auto index = static_cast<std::uint32_t>(line);
    shift = dtype == Dtype::kQ4 ? 8 * (index % 4) + 4 * (index / 4) : width * index;
    mask = 0xffffffffu >> (32 - width) << shift;
  }
  std::uint32_t shift = 0;
  std::uint32_t mask = 0;
};

/// Bundles of elements of one key, whole words of them: `words` are its token's.
template <Dtype kDtype>
void put_key_of(const std::uint32_t* values, std::int64_t count, std::uint32_t* words) {
  constexpr std::int64_t kLines = KvHeadLayout::bundle_lines(kDtype);
  for (std::int64_t first = 0; first < count; first += kLines, words += kPageTokens) {
    std::uint32_t word = 0;
    for (std::int64_t line = 0; line < kLines; ++line) {
      word |= values[first + line] << LineBits(kDtype, line).shift;
    }
    *words = word;
  }
}
void put_key(Dtype dtype, const StoredGroup& group, std::int64_t count, std::uint32_t* words) {
  if (dtype == Dtype::kF32) put_key_of<Dtype::kF32>(group.values, count, words);
  if (dtype == Dtype::kBf16) put_key_of<Dtype::kBf16>(group.values, count, words);
  if (dtype == Dtype::kQ8) put_key_of<Dtype::kQ8>(group.values, count, words);
  if (dtype == Dtype::kQ4) put_key_of<Dtype::kQ4>(group.values, count, words);
}

/// One line of a bundle of values.
STRATA_MULTIVERSION void put_value(const std::uint32_t* __restrict values, std::int64_t count,
                                   std::uint32_t shift, std::uint32_t mask,
                                   std::uint32_t* __restrict words) {
  for (std::int64_t i = 0; i < count; ++i) words[i] = (words[i] & ~mask) | values[i] << shift;
}

void put_scale(const KvHeadLayout& layout, const StoredGroup& group, std::int64_t at,
               std::size_t scales, std::size_t zeros, std::byte* head) {
  if (!is_quantized(layout.dtype)) return;
  reinterpret_cast<bf16*>(head + scales)[at] = group.scale;
  if (layout.dtype == Dtype::kQ4)
    head[zeros + static_cast<std::size_t>(at)] = std::byte{group.zero};
}

}  // namespace

template <typename T>
void store_kv_token(const KvHeadLayout& layout, const T* key, const T* value, std::int64_t place,
                    std::byte* head) {
  const Dtype dtype = layout.dtype;
  const std::int64_t lines = KvHeadLayout::bundle_lines(dtype);
  const LineBits bits(dtype, place % lines);
  const auto words = [&](std::size_t at) { return reinterpret_cast<std::uint32_t*>(head + at); };
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    const std::int64_t first = g * kGroupNumel, count = layout.group_elements(g);
    const std::int64_t at = g * kPageTokens + place;
    StoredGroup group = stored_group(key + first, count, dtype);
    put_scale(layout, group, at, layout.key_scales, layout.key_zeros, head);
    put_key(dtype, group, count, words(layout.keys_of(g)) + place);
    group = stored_group(value + first, count, dtype);
    put_scale(layout, group, at, layout.value_scales, layout.value_zeros, head);
    const std::size_t bundle = KvHeadLayout::bundle_bytes(count);
    put_value(group.values, static_cast<std::int64_t>(bundle / 4), bits.shift, bits.mask,
              words(layout.values_of(g) + static_cast<std::size_t>(place / lines) * bundle));
  }
}

template void store_kv_token(const KvHeadLayout&, const float*, const float*, std::int64_t,
                             std::byte*);
template void store_kv_token(const KvHeadLayout&, const bf16*, const bf16*, std::int64_t,
                             std::byte*);
template void store_kv_token(const KvHeadLayout&, const f16*, const f16*, std::int64_t, std::byte*);

}  // namespace strata::cpu
