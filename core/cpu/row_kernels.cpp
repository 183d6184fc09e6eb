#include "core/cpu/row_kernels.h"

#include <cstring>

#include "core/cpu/numeric.h"
#include "core/error.h"

namespace strata::cpu {
namespace {

/// A vector of kLanes floats: one register of AVX-512, two of AVX2, four of SSE.
using Floats [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using Ints [[gnu::vector_size(kLanes * sizeof(std::int32_t))]] = std::int32_t;
using Words [[gnu::vector_size(kLanes * sizeof(std::uint16_t))]] = std::uint16_t;
using Bytes [[gnu::vector_size(kLanes)]] = std::uint8_t;
using SignedBytes [[gnu::vector_size(kLanes)]] = std::int8_t;

constexpr std::int64_t kVectors = kGroupNumel / kLanes;

template <typename Vector>
[[gnu::always_inline]] inline void get(Vector& vector, const std::byte* from) {
  std::memcpy(&vector, from, sizeof vector);
}

/// Rows of plain numbers. get(): elements [16 vector, 16 vector + 16) of a group.
template <typename T>
struct PlainRow {
  static constexpr bool kScaled = false;
  static constexpr std::int64_t kGroupBytes = kGroupNumel * static_cast<std::int64_t>(sizeof(T));

  [[gnu::always_inline]] static void get(const std::byte* group, std::int64_t vector, Floats& to);
};
template <>
[[gnu::always_inline]] inline void PlainRow<float>::get(const std::byte* group, std::int64_t vector,
                                                        Floats& to) {
  cpu::get(to, group + vector * static_cast<std::int64_t>(sizeof(Floats)));
}
template <>
[[gnu::always_inline]] inline void PlainRow<bf16>::get(const std::byte* group, std::int64_t vector,
                                                       Floats& to) {
  Words words;
  cpu::get(words, group + vector * static_cast<std::int64_t>(sizeof(Words)));
  const Ints bits = __builtin_convertvector(words, Ints) << 16;
  std::memcpy(&to, &bits, sizeof to);
}
/// The exponent is moved by a multiplication, which also makes subnormal numbers normal.
template <>
[[gnu::always_inline]] inline void PlainRow<f16>::get(const std::byte* group, std::int64_t vector,
                                                      Floats& to) {
  Words words;
  cpu::get(words, group + vector * static_cast<std::int64_t>(sizeof(Words)));
  const Ints half = __builtin_convertvector(words, Ints);
  const Ints magnitude = (half & 0x7fff) << 13;
  Floats value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112f;
  Ints bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits |= (magnitude >= (31 << 23)) & 0x7f800000;  // infinity and NaN
  bits |= (half & 0x8000) << 16;
  std::memcpy(&to, &bits, sizeof to);
}

[[gnu::always_inline]] inline float scale_of(const std::byte* group) {
  bf16 scale;
  std::memcpy(&scale, group, sizeof scale);
  return load(scale);
}

struct Q8Row {
  static constexpr bool kScaled = true;
  static constexpr std::int64_t kGroupBytes = group_bytes(Dtype::kQ8);

  [[gnu::always_inline]] static float scale(const std::byte* group) { return scale_of(group); }
  [[gnu::always_inline]] static void get(const std::byte* group, std::int64_t vector, Floats& to) {
    SignedBytes bytes;
    cpu::get(bytes, group + 2 + vector * kLanes);
    to = __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
  }
};

struct Q4Row {
  static constexpr bool kScaled = true;
  static constexpr std::int64_t kGroupBytes = group_bytes(Dtype::kQ4);

  [[gnu::always_inline]] static float scale(const std::byte* group) { return scale_of(group); }
  [[gnu::always_inline]] static void get(const std::byte* group, std::int64_t vector, Floats& to) {
    Bytes bytes;
    cpu::get(bytes, group + 3 + vector % 2 * kLanes);
    const Ints pairs = __builtin_convertvector(bytes, Ints);
    const Ints values = vector < 2 ? pairs & 15 : pairs >> 4;
    to = __builtin_convertvector(values - std::to_integer<std::int32_t>(group[2]), Floats);
  }
};

/// Asks for the bytes of a group that lie `ahead` of this one.
[[gnu::always_inline]] inline void fetch_ahead(const std::byte* group, std::int64_t ahead,
                                               std::int64_t bytes) {
  for (std::int64_t line = 0; line < bytes; line += 64)
    __builtin_prefetch(group + ahead + line, 0, 2);
}

/// Adds the terms of one group to the strands.
template <typename Row, int X, int W>
[[gnu::always_inline]] inline void add_group(const std::byte* const (&x)[X],
                                             const std::byte* const (&w)[W], Floats (&to)[X][W]) {
  for (std::int64_t vector = 0; vector < kVectors; ++vector) {
    Floats left[X];
    for (int t = 0; t < X; ++t) PlainRow<float>::get(x[t], vector, left[t]);
    for (int n = 0; n < W; ++n) {
      Floats right;
      Row::get(w[n], vector, right);
      for (int t = 0; t < X; ++t) to[t][n] += left[t] * right;
    }
  }
}

template <typename Row, int X, int W>
STRATA_MULTIVERSION void multiply_part(RowTile& tile, std::int64_t t0, std::int64_t n0) {
  constexpr std::int64_t kXBytes = PlainRow<float>::kGroupBytes;
  const std::byte* x[X];
  const std::byte* w[W];
  for (int t = 0; t < X; ++t) x[t] = tile.x + (t0 + t) * tile.x_stride;
  for (int n = 0; n < W; ++n) w[n] = tile.w + (n0 + n) * tile.w_stride;
  const std::int64_t groups = tile.k / kGroupNumel;
  const std::int64_t ahead = ahead_of_last(tile, t0, X);
  Floats strands[X][W] = {};
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::byte* x_group[X];
    const std::byte* w_group[W];
    for (int t = 0; t < X; ++t) x_group[t] = x[t] + group * kXBytes;
    for (int n = 0; n < W; ++n) w_group[n] = w[n] + group * Row::kGroupBytes;
    for (int n = 0; n < W; ++n) fetch_ahead(w_group[n], ahead, Row::kGroupBytes);
    if constexpr (Row::kScaled) {
      Floats sums[X][W] = {};
      add_group<Row>(x_group, w_group, sums);
      for (int n = 0; n < W; ++n) {
        const float scale = Row::scale(w_group[n]);
        for (int t = 0; t < X; ++t) strands[t][n] += sums[t][n] * scale;
      }
    } else {
      add_group<Row>(x_group, w_group, strands);
    }
  }
  if constexpr (!Row::kScaled) {
    const std::int64_t rest = tile.k % kGroupNumel;
    if (rest > 0) {  // a copy of the weights with zeros behind them
      std::byte padded[W][Row::kGroupBytes] = {};
      const std::byte* x_group[X];
      const std::byte* w_group[W];
      for (int t = 0; t < X; ++t) x_group[t] = x[t] + groups * kXBytes;
      for (int n = 0; n < W; ++n) {
        std::memcpy(padded[n], w[n] + groups * Row::kGroupBytes,
                    static_cast<std::size_t>(rest * Row::kGroupBytes / kGroupNumel));
        w_group[n] = padded[n];
      }
      add_group<Row>(x_group, w_group, strands);
    }
  }
  for (int t = 0; t < X; ++t) {
    for (int n = 0; n < W; ++n) {
      Lanes lanes;
      std::memcpy(lanes.strand, &strands[t][n], sizeof lanes.strand);
      tile.sums[t0 + t][n0 + n] = total(lanes);
    }
  }
}

/// Four sums at a time: with what they are made of they fit the sixteen registers of AVX2.
template <typename Row>
void multiply(RowTile& tile) {
  std::int64_t t = 0;
  for (; t + 2 <= tile.x_rows; t += 2) {
    std::int64_t n = 0;
    for (; n + 2 <= tile.w_rows; n += 2) multiply_part<Row, 2, 2>(tile, t, n);
    for (; n < tile.w_rows; ++n) multiply_part<Row, 2, 1>(tile, t, n);
  }
  for (; t < tile.x_rows; ++t) {
    std::int64_t n = 0;
    for (; n + 4 <= tile.w_rows; n += 4) multiply_part<Row, 1, 4>(tile, t, n);
    for (; n < tile.w_rows; ++n) multiply_part<Row, 1, 1>(tile, t, n);
  }
}

}  // namespace

RowKernel portable_row_kernel(Dtype weights) {
  if (weights == Dtype::kQ8) return {Dtype::kF32, multiply<Q8Row>};
  if (weights == Dtype::kQ4) return {Dtype::kF32, multiply<Q4Row>};
  return visit_compute_dtype(weights, []<typename T>(T) {
    return RowKernel{Dtype::kF32, multiply<PlainRow<T>>};
  });
}

}  // namespace strata::cpu
