#include "core/cpu/kv_lines.h"

#include <cstring>
#include <utility>

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

/// A vector of kLanes floats: one register of AVX-512, two of AVX2, four of SSE.
using Floats [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using Ints [[gnu::vector_size(kLanes * sizeof(std::int32_t))]] = std::int32_t;
using Bytes [[gnu::vector_size(kLanes)]] = std::uint8_t;

template <typename Vector>
[[gnu::always_inline]] inline void get(Vector& vector, const void* from) {
  std::memcpy(&vector, from, sizeof vector);
}

template <typename To, typename From>
[[gnu::always_inline]] inline void as_bits(const From& from, To& to) {
  static_assert(sizeof from == sizeof to);
  std::memcpy(&to, &from, sizeof to);
}

// Formats of lines. line<L>() takes line L out of the words of a bundle, without its zero point.
//
// Small whole numbers become floats as the last bits of a power of two, which is then subtracted:
// bits b.. of 2^(23 - b), so that most lines need no shift.

/// What the words hold from bit kBit on, as far as kMask says, less kLess.
template <int kBit, std::int32_t kMask, int kLess>
[[gnu::always_inline]] inline void to_floats(const Ints& words, Floats& to) {
  constexpr int kShift = kBit / 16 * 16, kAt = kBit % 16;
  constexpr std::int32_t kPower = (127 + 23 - kAt) << 23;
  const Ints bits = ((words >> kShift) & (kMask << kAt)) | kPower;
  as_bits(bits, to);
  to -= Floats{} + static_cast<float>((1 << (23 - kAt)) + kLess);
}

struct Fp32Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kF32;
  template <int>
  [[gnu::always_inline]] static void line(const Ints& words, Floats& to) {
    as_bits(words, to);
  }
};

struct Bf16Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kBf16;
  template <int L>
  [[gnu::always_inline]] static void line(const Ints& words, Floats& to) {
    const Ints bits = L == 0 ? words << 16 : words & static_cast<std::int32_t>(0xffff0000u);
    as_bits(bits, to);
  }
};

struct Q8Line {
  static constexpr bool kHasZeros = false;
  static constexpr Dtype kDtype = Dtype::kQ8;
  template <int L>
  [[gnu::always_inline]] static void line(const Ints& words, Floats& to) {
    to_floats<8 * L, 0xff, 128>(words, to);
  }
};

struct Q4Line {
  static constexpr bool kHasZeros = true;
  static constexpr Dtype kDtype = Dtype::kQ4;
  template <int L>
  [[gnu::always_inline]] static void line(const Ints& words, Floats& to) {
    to_floats<8 * (L % 4) + 4 * (L / 4), 0xf, 0>(words, to);
  }
};

/// Calls body.operator()<L>() for the lines L of a bundle, in order.
template <typename Line, typename Body>
[[gnu::always_inline]] inline void for_lines(const Body& body) {
  constexpr int kLines = static_cast<int>(KvHeadLayout::bundle_lines(Line::kDtype));
  [&]<int... L>(std::integer_sequence<int, L...>) __attribute__((always_inline)) {
    (body.template operator()<L>(), ...);
  }
  (std::make_integer_sequence<int, kLines>());
}

/// The zero points of a line: of its elements, or one for all of them.
template <bool kPerLine, int V>
struct Zeros {
  Floats of[V] = {};

  [[gnu::always_inline]] void begin(const KvLines& in) {
    for (int v = 0; v < V && !kPerLine; ++v) {
      Bytes bytes;
      get(bytes, in.zeros + v * kLanes);
      of[v] = __builtin_convertvector(bytes, Floats);
    }
  }
  [[gnu::always_inline]] void next(const KvLines& in, std::int64_t line) {
    if constexpr (kPerLine) of[0] = Floats{} + static_cast<float>(in.zeros[line]);
  }
  [[gnu::always_inline]] const Floats& vector(int v) const { return of[kPerLine ? 0 : v]; }
};

/// Lines of the bundle that begins with line `first`; the others may hold anything.
template <typename Line, bool kPerLine, int V, bool kWhole, typename Visit>
[[gnu::always_inline]] inline void visit_bundle(const KvLines& in, std::int64_t first,
                                                const std::byte* bundle, Zeros<kPerLine, V>& zeros,
                                                const Visit& visit) {
  for_lines<Line>([&]<int L>() __attribute__((always_inline)) {
    const std::int64_t line = first + L;
    if (!kWhole && (line < in.begin || line >= in.end)) return;
    if constexpr (Line::kHasZeros) zeros.next(in, line);
    Floats values[V];
    for (int v = 0; v < V; ++v) {
      Ints words;
      get(words, bundle + v * kLanes * 4);
      Line::template line<L>(words, values[v]);
      if constexpr (Line::kHasZeros) values[v] -= zeros.vector(v);
    }
    visit(line, values);
  });
}

/// Calls visit(line, its V vectors) for each of the lines, in order.
template <typename Line, bool kPerLine, int V, typename Visit>
[[gnu::always_inline]] inline void visit_lines(const KvLines& in, const Visit& visit) {
  constexpr auto kLines = KvHeadLayout::bundle_lines(Line::kDtype);
  constexpr auto kBytes = static_cast<std::int64_t>(KvHeadLayout::bundle_bytes(V * kLanes));
  Zeros<kPerLine, V> zeros;
  if constexpr (Line::kHasZeros) zeros.begin(in);
  std::int64_t first = in.begin / kLines * kLines;
  const std::byte* bundle = in.data + first / kLines * kBytes;
  for (; first < in.end; first += kLines, bundle += kBytes) {
    for (std::int64_t byte = 0; byte < kBytes; byte += 64) {
      __builtin_prefetch(bundle + in.ahead + byte, 0, 2);
    }
    if (kLines == 1 || (in.begin <= first && first + kLines <= in.end)) {
      visit_bundle<Line, kPerLine, V, true>(in, first, bundle, zeros, visit);
    } else {
      visit_bundle<Line, kPerLine, V, false>(in, first, bundle, zeros, visit);
    }
  }
}

template <typename Line, bool kPerLine, int R, int V>
STRATA_MULTIVERSION void add_part(const KvLines& in, const float* __restrict factors,
                                  std::int64_t factor_stride, float* __restrict sums,
                                  std::int64_t sum_stride) {
  Floats to[R][V];
  for (int row = 0; row < R; ++row) {
    for (int v = 0; v < V; ++v) get(to[row][v], sums + row * sum_stride + v * kLanes);
  }
  visit_lines<Line, kPerLine, V>(
      in, [&](std::int64_t line, const Floats(&values)[V]) __attribute__((always_inline)) {
        for (int row = 0; row < R; ++row) {
          const float factor = factors[row * factor_stride + line];
          for (int v = 0; v < V; ++v) to[row][v] += factor * values[v];
        }
      });
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

template <typename Line, bool kPerLine, int V>
STRATA_MULTIVERSION void decode_part(const KvLines& in, float* __restrict to, std::int64_t stride) {
  visit_lines<Line, kPerLine, V>(
      in, [&](std::int64_t line, const Floats(&values)[V]) __attribute__((always_inline)) {
        std::memcpy(to + line * stride, values, sizeof values);
      });
}

/// Calls body.operator()<Line, a zero point per line, V>() for what the lines are.
template <typename Body>
void visit_format(const KvLines& lines, const Body& body) {
  const std::int64_t vectors = (lines.elements + kLanes - 1) / kLanes;
  const auto with = [&]<typename Line, bool kPerLine>() {
    if (vectors == 1) body.template operator()<Line, kPerLine, 1>();
    if (vectors == 2) body.template operator()<Line, kPerLine, 2>();
    if (vectors == 3) body.template operator()<Line, kPerLine, 3>();
    if (vectors == 4) body.template operator()<Line, kPerLine, 4>();
  };
  if (lines.dtype == Dtype::kF32) with.template operator()<Fp32Line, false>();
  if (lines.dtype == Dtype::kBf16) with.template operator()<Bf16Line, false>();
  if (lines.dtype == Dtype::kQ8) with.template operator()<Q8Line, false>();
  if (lines.dtype != Dtype::kQ4) return;
  lines.zero_per_line ? with.template operator()<Q4Line, true>()
                      : body.template operator()<Q4Line, false, 4>();
}

}  // namespace

KvLines KvPage::keys(std::int64_t group) const {
  return {.data = head_ + layout_.keys_of(group),
          .dtype = layout_.dtype,
          .elements = kPageTokens,
          .begin = 0,
          .end = layout_.group_elements(group),
          .zeros = zeros(layout_.key_zeros, group),
          .zero_per_line = false,
          .ahead = ahead_};
}

KvLines KvPage::values(std::int64_t group, std::int64_t begin, std::int64_t end) const {
  return {.data = head_ + layout_.values_of(group),
          .dtype = layout_.dtype,
          .elements = layout_.group_elements(group),
          .begin = begin,
          .end = end,
          .zeros = zeros(layout_.value_zeros, group),
          .zero_per_line = true,
          .ahead = ahead_};
}

void add_kv_lines(const KvLines& lines, const float* factors, std::int64_t factor_stride,
                  std::int64_t rows, float* sums, std::int64_t sum_stride) {
  visit_format(lines, [&]<typename Line, bool kPerLine, int V>() {
    add_rows<Line, kPerLine, V>(lines, factors, factor_stride, rows, sums, sum_stride);
  });
}

void decode_kv_lines(const KvLines& lines, float* to, std::int64_t stride) {
  visit_format(lines, [&]<typename Line, bool kPerLine, int V>() {
    decode_part<Line, kPerLine, V>(lines, to, stride);
  });
}

}  // namespace strata::cpu
