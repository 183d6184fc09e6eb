#include "core/cpu/kv_lines.h"

#include <cstring>

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

/// A vector of kLanes floats: one register of AVX-512, two of AVX2, four of SSE.
using Floats [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using Ints [[gnu::vector_size(kLanes * sizeof(std::int32_t))]] = std::int32_t;
using Words [[gnu::vector_size(kLanes * sizeof(std::uint16_t))]] = std::uint16_t;
using Bytes [[gnu::vector_size(kLanes)]] = std::uint8_t;
using HalfInts [[gnu::vector_size(kLanes * sizeof(std::int32_t) / 2)]] = std::int32_t;

// Widened twice by two: for four times at once g++ 12 has no instruction and takes bytes apart.
[[gnu::always_inline]] inline void widen(const Bytes& from, Ints& to) {
  to = __builtin_convertvector(__builtin_convertvector(from, Words), Ints);
}

template <typename Vector>
[[gnu::always_inline]] inline void get(Vector& vector, const std::byte* from) {
  std::memcpy(&vector, from, sizeof vector);
}

template <typename To, typename From>
[[gnu::always_inline]] inline void as_bits(const From& from, To& to) {
  static_assert(sizeof from == sizeof to);
  std::memcpy(&to, &from, sizeof to);
}

// Formats of lines. get() gives the V vectors of a line.
//
// Small whole numbers become floats as the last bits of a power of two, which is then subtracted:
// bits 0.. of 2^23, bits 8.. of 2^15, bits 16.. of 2^7. So whole lines of 64 need no shuffles: they
// lie such that each register of four bytes has the elements of four vectors.
constexpr std::int32_t kBits0 = 0x4b000000, kBits4 = 0x49000000, kBits8 = 0x47000000,
                       kBits16 = 0x43000000;

/// (from & mask) as the last bits of a power of two, less that.
[[gnu::always_inline]] inline void to_floats(const Ints& from, std::int32_t mask,
                                             std::int32_t power, const Floats& less, Floats& to) {
  const Ints bits = (from & mask) | power;
  as_bits(bits, to);
  to -= less;
}

struct Fp32Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kF32;
  template <int V>
  [[gnu::always_inline]] static void get(const std::byte* line, const Floats (&)[V],
                                         Floats (&to)[V]) {
    for (int v = 0; v < V; ++v) cpu::get(to[v], line + v * kLanes * 4);
  }
};

struct Bf16Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kBf16;
  template <int V>
  [[gnu::always_inline]] static void get(const std::byte* line, const Floats (&)[V],
                                         Floats (&to)[V]) {
    for (int v = 0; v < V; ++v) {
      Words words;
      cpu::get(words, line + v * kLanes * 2);
      const Ints bits = __builtin_convertvector(words, Ints) << 16;
      as_bits(bits, to[v]);
    }
  }
};

struct Q8Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kQ8;
  template <int V>
  [[gnu::always_inline]] static void get(const std::byte* line, const Floats (&)[V],
                                         Floats (&to)[V]) {
    if constexpr (V == 4) {
      Ints low;
      cpu::get(low, line);
      const Ints high = low >> 16;
      const Floats less0 = Floats{} + (0x1p23f + 128), less8 = Floats{} + (0x1p15f + 128);
      to_floats(low, 0xff, kBits0, less0, to[0]);
      to_floats(low, 0xff00, kBits8, less8, to[1]);
      to_floats(high, 0xff, kBits0, less0, to[2]);
      to_floats(high, 0xff00, kBits8, less8, to[3]);
    } else {
      for (int v = 0; v < V; ++v) {
        Bytes bytes;
        cpu::get(bytes, line + v * kLanes);
        Ints values;
        widen(bytes, values);
        to[v] = __builtin_convertvector(values - 128, Floats);
      }
    }
  }
};

struct Q4Line {
  static constexpr bool kHasZeros = true;
  static constexpr Dtype kDtype = Dtype::kQ4;

  template <int V>
  [[gnu::always_inline]] static void get(const std::byte* line, const Floats (&zero)[V],
                                         Floats (&to)[V]) {
    if constexpr (V == 4) {
      HalfInts half;
      cpu::get(half, line);
      const Ints twice =
          __builtin_shufflevector(half, half, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
      const Ints pairs = twice >> Ints{0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4};
      to_floats(pairs, 0xf, kBits0, zero[0], to[0]);
      to_floats(pairs, 0xf00, kBits8, zero[1], to[1]);
      to_floats(pairs, 0xf0000, kBits16, zero[2], to[2]);
      to_floats(pairs >> 24, 0xf, kBits0, zero[3], to[3]);
    } else {
      static_assert(V == 2);
      Bytes bytes;
      cpu::get(bytes, line);
      Ints pairs;
      widen(bytes, pairs);
      to_floats(pairs, 0xf, kBits0, zero[0], to[0]);
      to_floats(pairs, 0xf0, kBits4, zero[1], to[1]);
    }
  }

  /// What get() takes off a vector: the zero point that much shifted, and a power of two.
  struct Less {
    int shift;
    std::int32_t power;
  };
  static constexpr Less less(int vector, int vectors) {
    constexpr Less kShort[] = {{0, kBits0}, {4, kBits4}};
    constexpr Less kWhole[] = {{0, kBits0}, {8, kBits8}, {16, kBits16}, {0, kBits0}};
    return vectors == 2 ? kShort[vector] : kWhole[vector];
  }
};

/// What lines of kQ4 are less, else nothing.
template <typename Line, int V>
struct Zeros {
  Floats of[V] = {};

  [[gnu::always_inline]] void begin(const KvLines& in) {
    if constexpr (Line::kHasZeros) {
      if (in.zero_per_line) return;
      for (int v = 0; v < V; ++v) {
        Bytes bytes;
        std::memcpy(&bytes, in.zeros + v * kLanes, sizeof bytes);
        Ints points;
        widen(bytes, points);
        points = (points << Line::less(v, V).shift) + Line::less(v, V).power;
        as_bits(points, of[v]);
      }
    }
  }
  [[gnu::always_inline]] void next(const KvLines& in, std::int64_t line) {
    if constexpr (Line::kHasZeros) {
      const std::int32_t point = in.zeros[line];
      for (int v = 0; v < V; ++v) {
        const std::int32_t bits = (point << Line::less(v, V).shift) + Line::less(v, V).power;
        of[v] = Floats{} + std::bit_cast<float>(bits);
      }
    }
  }
};

template <typename Line, bool kPerLine, int R, int V>
STRATA_MULTIVERSION void add_part(const KvLines& in, const float* __restrict factors,
                                  std::int64_t factor_stride, float* __restrict sums,
                                  std::int64_t sum_stride) {
  constexpr auto kBytes =
      static_cast<std::int64_t>(KvHeadLayout::line_bytes(Line::kDtype, V * kLanes));
  Floats to[R][V];
  for (int row = 0; row < R; ++row) {
    for (int v = 0; v < V; ++v) {
      std::memcpy(&to[row][v], sums + row * sum_stride + v * kLanes, sizeof(Floats));
    }
  }
  Zeros<Line, V> zeros;
  zeros.begin(in);
  const std::byte* line = in.data;
  for (std::int64_t index = 0; index < in.lines; ++index, line += kBytes) {
    for (std::int64_t byte = 0; byte < kBytes; byte += 64) {
      __builtin_prefetch(line + in.ahead + byte, 0, 2);
    }
    if constexpr (kPerLine) zeros.next(in, index);
    Floats values[V];
    Line::get(line, zeros.of, values);
    for (int row = 0; row < R; ++row) {
      const float factor = factors[row * factor_stride + index];
      for (int v = 0; v < V; ++v) to[row][v] += factor * values[v];
    }
  }
  for (int row = 0; row < R; ++row) {
    for (int v = 0; v < V; ++v) {
      std::memcpy(sums + row * sum_stride + v * kLanes, &to[row][v], sizeof(Floats));
    }
  }
}

template <typename Line, bool kPerLine, int V>
void add_rows(KvLines in, const float* factors, std::int64_t factor_stride, std::int64_t rows,
              float* sums, std::int64_t sum_stride) {
  std::int64_t row = 0;
  const auto add = [&](auto part, std::int64_t count) {
    part(in, factors + row * factor_stride, factor_stride, sums + row * sum_stride, sum_stride);
    row += count;
    in.ahead = 0;
  };
  while (row + 4 <= rows) add(add_part<Line, kPerLine, 4, V>, 4);
  if (row + 2 <= rows) add(add_part<Line, kPerLine, 2, V>, 2);
  if (row < rows) add(add_part<Line, kPerLine, 1, V>, 1);
}

template <typename Line, int V>
STRATA_MULTIVERSION void decode_part(const KvLines& in, float* __restrict to, std::int64_t stride) {
  constexpr auto kBytes =
      static_cast<std::int64_t>(KvHeadLayout::line_bytes(Line::kDtype, V * kLanes));
  Zeros<Line, V> zeros;
  zeros.begin(in);
  for (std::int64_t line = 0; line < in.lines; ++line) {
    if (in.zero_per_line) zeros.next(in, line);
    Floats values[V];
    Line::get(in.data + line * kBytes, zeros.of, values);
    std::memcpy(to + line * stride, values, sizeof values);
  }
}

/// Calls body.operator()<Line, V>() for the format of the lines and the vectors of each.
template <typename Body>
void visit_lines(const KvLines& lines, const Body& body) {
  const std::int64_t vectors = (lines.elements + kLanes - 1) / kLanes;
  const auto with = [&]<typename Line>(Line) {
    if constexpr (Line::kHasZeros) {
      vectors <= 2 ? body.template operator()<Line, 2>() : body.template operator()<Line, 4>();
    } else {
      if (vectors == 1) body.template operator()<Line, 1>();
      if (vectors == 2) body.template operator()<Line, 2>();
      if (vectors == 3) body.template operator()<Line, 3>();
      if (vectors == 4) body.template operator()<Line, 4>();
    }
  };
  if (lines.dtype == Dtype::kF32) with(Fp32Line{});
  if (lines.dtype == Dtype::kBf16) with(Bf16Line{});
  if (lines.dtype == Dtype::kQ8) with(Q8Line{});
  if (lines.dtype == Dtype::kQ4) with(Q4Line{});
}

}  // namespace

KvLines KvPage::keys(std::int64_t group) const {
  const auto line = static_cast<std::int64_t>(KvHeadLayout::line_bytes(layout_.dtype, kPageTokens));
  KvLines lines{.data = head_ + group * kGroupNumel * line,
                .dtype = layout_.dtype,
                .elements = kPageTokens,
                .lines = layout_.group_elements(group),
                .zero_per_line = false,
                .ahead = ahead_};
  if (layout_.dtype == Dtype::kQ4) {
    lines.zeros =
        reinterpret_cast<const std::uint8_t*>(head_ + layout_.key_zeros) + group * kPageTokens;
  }
  return lines;
}

KvLines KvPage::values(std::int64_t group, std::int64_t begin, std::int64_t end) const {
  KvLines lines{.data = head_ + layout_.values_of(group),
                .dtype = layout_.dtype,
                .elements = layout_.group_elements(group),
                .lines = end - begin,
                .zero_per_line = true,
                .ahead = ahead_};
  lines.data += begin * lines.line_bytes();
  if (layout_.dtype == Dtype::kQ4) {
    lines.zeros = reinterpret_cast<const std::uint8_t*>(head_ + layout_.value_zeros) +
                  group * kPageTokens + begin;
  }
  return lines;
}

void add_kv_lines(const KvLines& lines, const float* factors, std::int64_t factor_stride,
                  std::int64_t rows, float* sums, std::int64_t sum_stride) {
  visit_lines(lines, [&]<typename Line, int V>() {
    if (Line::kHasZeros && lines.zero_per_line) {
      add_rows<Line, Line::kHasZeros, V>(lines, factors, factor_stride, rows, sums, sum_stride);
    } else {
      add_rows<Line, false, V>(lines, factors, factor_stride, rows, sums, sum_stride);
    }
  });
}

void decode_kv_lines(const KvLines& lines, float* to, std::int64_t stride) {
  visit_lines(lines, [&]<typename Line, int V>() { decode_part<Line, V>(lines, to, stride); });
}

}  // namespace strata::cpu
