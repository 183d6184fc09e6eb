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
using SignedBytes [[gnu::vector_size(kLanes)]] = std::int8_t;

template <typename Vector>
[[gnu::always_inline]] inline void get(Vector& vector, const std::byte* from) {
  std::memcpy(&vector, from, sizeof vector);
}

// Formats of lines. get(): elements [16 vector, 16 vector + 16) of a line.

struct Fp32Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kF32;
  [[gnu::always_inline]] static void get(const std::byte* line, int vector, const Floats&,
                                         Floats& to) {
    cpu::get(to, line + vector * kLanes * 4);
  }
};

struct Bf16Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kBf16;
  [[gnu::always_inline]] static void get(const std::byte* line, int vector, const Floats&,
                                         Floats& to) {
    Words words;
    cpu::get(words, line + vector * kLanes * 2);
    const Ints bits = __builtin_convertvector(words, Ints) << 16;
    std::memcpy(&to, &bits, sizeof to);
  }
};

struct Q8Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kQ8;
  [[gnu::always_inline]] static void get(const std::byte* line, int vector, const Floats&,
                                         Floats& to) {
    SignedBytes bytes;
    cpu::get(bytes, line + vector * kLanes);
    to = __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
  }
};

/// Values become floats as the last bits of a power of two, of which that power and the zero point
/// are then taken: 2^23 for the low halves of bytes, 2^19 for the high ones, which have bits 4..7.
struct Q4Line {
  static constexpr bool kHasZeros = true;
  static constexpr Dtype kDtype = Dtype::kQ4;
  static constexpr std::int32_t kLow = 0x4b000000, kHigh = 0x49000000;

  [[gnu::always_inline]] static void get(const std::byte* line, int vector, const Floats& zero,
                                         Floats& to) {
    Bytes bytes;
    cpu::get(bytes, line + vector / 2 * kLanes);
    const Ints pairs = __builtin_convertvector(bytes, Ints);
    const Ints bits = vector % 2 == 0 ? (pairs & 15) | kLow : (pairs & 240) | kHigh;
    Floats shifted;
    std::memcpy(&shifted, &bits, sizeof shifted);
    to = shifted - zero;
  }
  /// What get() subtracts.
  [[gnu::always_inline]] static void zeros_of_elements(const std::uint8_t* zeros, int vector,
                                                       Floats& to) {
    Bytes bytes;
    std::memcpy(&bytes, zeros + vector * kLanes, sizeof bytes);
    const Ints points = __builtin_convertvector(bytes, Ints);
    const Ints bits = vector % 2 == 0 ? points + kLow : (points << 4) + kHigh;
    std::memcpy(&to, &bits, sizeof to);
  }
  [[gnu::always_inline]] static void zero_of_line(std::uint8_t point, int vector, Floats& to) {
    const std::int32_t bits = vector % 2 == 0 ? point + kLow : (point << 4) + kHigh;
    to = Floats{} + std::bit_cast<float>(bits);
  }
};

template <typename Line, int V>
struct Zeros {
  Floats of[V] = {};

  [[gnu::always_inline]] void begin(const KvLines& in) {
    if constexpr (Line::kHasZeros) {
      if (in.zero_per_line) return;
      for (int v = 0; v < V; ++v) Line::zeros_of_elements(in.zeros, v, of[v]);
    }
  }
  [[gnu::always_inline]] void next(const KvLines& in, std::int64_t line) {
    if constexpr (Line::kHasZeros) {
      for (int v = 0; v < V && v < 2; ++v) Line::zero_of_line(in.zeros[line], v, of[v]);
    }
  }
  /// @param kPerLine the same for all elements
  template <bool kPerLine>
  [[gnu::always_inline]] const Floats& at(int vector) const {
    return of[kPerLine ? vector % 2 : vector];
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
    for (int v = 0; v < V; ++v) {
      Floats values;
      Line::get(line, v, zeros.template at<kPerLine>(v), values);
      for (int row = 0; row < R; ++row) {
        to[row][v] += factors[row * factor_stride + index] * values;
      }
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
    for (int v = 0; v < V; ++v) {
      Floats zero = zeros.of[v];
      if constexpr (Line::kHasZeros) {
        if (in.zero_per_line) Line::zero_of_line(in.zeros[line], v, zero);
      }
      Floats values;
      Line::get(in.data + line * kBytes, v, zero, values);
      std::memcpy(to + line * stride + v * kLanes, &values, sizeof values);
    }
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
