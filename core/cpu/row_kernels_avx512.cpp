#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/cpu/row_kernels.h"

#define STRATA_AVX512_BF16 gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")

namespace strata::cpu {
namespace {

constexpr std::int64_t kXGroupBytes = 2 * kGroupNumel;
constexpr std::int64_t kLineBytes = 64;

[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512bh pairs(__m512i words) {
  return reinterpret_cast<__m512bh>(words);
}

/// Groups of bf16 as they are: the first and the last 32 elements.
struct Bf16Row {
  static constexpr bool kScaled = false;
  static constexpr std::int64_t kGroupBytes = kXGroupBytes;

  [[STRATA_AVX512_BF16, gnu::always_inline]] static inline void get(const std::byte* group,
                                                                    __m512bh (&to)[2]) {
    to[0] = pairs(_mm512_loadu_si512(group));
    to[1] = pairs(_mm512_loadu_si512(group + 64));
  }
};

/// The scale of a quantised group in all strands.
[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512 scale_of(const std::byte* group) {
  std::int32_t bits;  // the bf16 and two bytes of what follows
  std::memcpy(&bits, group, sizeof bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_set1_epi32(bits), 16));
}

/// The upper and lower bytes of bf16 of the integers 0..127, and the order of the elements of a
/// group that makes two halves of it when the bytes of each 128 bits are taken apart.
struct ByteTables {
  alignas(64) std::uint8_t upper[128];
  alignas(64) std::uint8_t lower[128];
  alignas(64) std::uint8_t order[64];
};
constexpr std::uint16_t bf16_bits(int value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16);
}
constexpr ByteTables kByteTables = [] {
  ByteTables tables{};
  for (int i = 0; i < 128; ++i) {
    tables.upper[i] = static_cast<std::uint8_t>(bf16_bits(i) >> 8);
    tables.lower[i] = static_cast<std::uint8_t>(bf16_bits(i) & 255);
  }
  for (int i = 0; i < 64; ++i) {
    const int lane = i / 16;
    tables.order[i] = static_cast<std::uint8_t>(8 * lane + i % 8 + (i % 16 < 8 ? 0 : 32));
  }
  return tables;
}();

[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512i look_up(const std::uint8_t* table,
                                                                  __m512i indices) {
  return _mm512_permutex2var_epi8(_mm512_load_si512(table), indices, _mm512_load_si512(table + 64));
}

struct Q8Row {
  static constexpr bool kScaled = true;
  static constexpr std::int64_t kGroupBytes = group_bytes(Dtype::kQ8);

  [[STRATA_AVX512_BF16, gnu::always_inline]] static inline __m512 scale(const std::byte* group) {
    return scale_of(group);
  }
  /// bf16 holds integers of eight bits exactly: magnitudes are looked up byte by byte.
  [[STRATA_AVX512_BF16, gnu::always_inline]] static inline void get(const std::byte* group,
                                                                    __m512bh (&to)[2]) {
    const __m512i values = _mm512_permutexvar_epi8(_mm512_load_si512(kByteTables.order),
                                                   _mm512_loadu_si512(group + 2));
    const __m512i magnitudes = _mm512_abs_epi8(values);
    const __m512i lower = look_up(kByteTables.lower, magnitudes);
    // upper | (values & 0x80)
    const __m512i upper = _mm512_ternarylogic_epi32(look_up(kByteTables.upper, magnitudes), values,
                                                    _mm512_set1_epi8(-128), 0xf8);
    to[0] = pairs(_mm512_unpacklo_epi8(lower, upper));
    to[1] = pairs(_mm512_unpackhi_epi8(lower, upper));
  }
};

/// bf16 of the integers -z..15 - z, twice over: what a group with the zero point z means by
/// its values, whatever the bit above them.
struct ValueTables {
  alignas(64) std::uint16_t of_zero_point[16][32];
};
constexpr ValueTables kValueTables = [] {
  ValueTables tables{};
  for (int zero = 0; zero < 16; ++zero) {
    for (int i = 0; i < 32; ++i) tables.of_zero_point[zero][i] = bf16_bits(i % 16 - zero);
  }
  return tables;
}();

struct Q4Row {
  static constexpr bool kScaled = true;
  static constexpr std::int64_t kGroupBytes = group_bytes(Dtype::kQ4);

  [[STRATA_AVX512_BF16, gnu::always_inline]] static inline __m512 scale(const std::byte* group) {
    return scale_of(group);
  }
  /// The lookup takes the low five bits of a word.
  [[STRATA_AVX512_BF16, gnu::always_inline]] static inline void get(const std::byte* group,
                                                                    __m512bh (&to)[2]) {
    const auto zero_point = std::to_integer<unsigned>(group[2]) & 15u;
    const __m512i table = _mm512_load_si512(kValueTables.of_zero_point[zero_point]);
    const __m512i values =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + 3)));
    to[0] = pairs(_mm512_permutexvar_epi16(values, table));
    to[1] = pairs(_mm512_permutexvar_epi16(_mm512_srli_epi16(values, 4), table));
  }
};

/// totals[i] = the sum of the strands of vector i, halves first: total() of numeric.h for sixteen
/// at once.
[[STRATA_AVX512_BF16, gnu::always_inline]] inline void add_strands(const __m512 (&vectors)[16],
                                                                   float* totals) {
  __m512 eights[8], fours[4], twos[2];
  for (int i = 0; i < 8; ++i) {
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(vectors[2 * i], vectors[2 * i + 1], 0x44),
                              _mm512_shuffle_f32x4(vectors[2 * i], vectors[2 * i + 1], 0xee));
  }
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(eights[2 * i], eights[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(eights[2 * i], eights[2 * i + 1], 0xdd));
  }
  for (int i = 0; i < 2; ++i) {
    twos[i] = _mm512_add_ps(_mm512_shuffle_ps(fours[2 * i], fours[2 * i + 1], 0x44),
                            _mm512_shuffle_ps(fours[2 * i], fours[2 * i + 1], 0xee));
  }
  const __m512 ones = _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88),
                                    _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
  // Lane 4 l + j holds vector 4 j + l.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_ps(totals, _mm512_permutexvar_ps(order, ones));
}

/// The share of the weights ahead that rows [t, t + x) of a tile ask for, with rows [n, n + w) of
/// w: so many cache lines with each group, when every pass over the weights asks for its share.
struct LinesAhead {
  const std::byte* next;
  std::int64_t per_group;
};
LinesAhead lines_ahead(const RowTile& tile, std::int64_t t, std::int64_t x, std::int64_t n,
                       std::int64_t w) {
  const std::int64_t lines = w * tile.w_stride / kLineBytes;
  const std::int64_t groups = std::max<std::int64_t>(1, tile.k / kGroupNumel);
  const std::int64_t begin = lines * (tile.x_begin + t) / tile.x_total;
  const std::int64_t end = lines * (tile.x_begin + t + x) / tile.x_total;
  return {tile.w + n * tile.w_stride + tile.ahead + begin * kLineBytes,
          (end - begin + groups - 1) / groups};
}

/// X rows of x by W of w, X W <= 16. Each sum has two additions waiting for each other in a group,
/// so eight sums or more keep the unit busy.
///
/// Rows of bf16 are multiplied about as fast as memory gives them, four rows of x at a time: to
/// have both at once, what comes next is asked for evenly in all passes. A burst in one of them
/// would fill the queue of the caches and hold up its loads.
template <typename Row, int X, int W>
[[STRATA_AVX512_BF16]] void multiply_part(RowTile& tile, std::int64_t t0, std::int64_t n0) {
  constexpr bool kEvenly = !Row::kScaled && X == 4;
  const std::byte* x[X];
  const std::byte* w[W];
  for (int t = 0; t < X; ++t) x[t] = tile.x + (t0 + t) * tile.x_stride;
  for (int n = 0; n < W; ++n) w[n] = tile.w + (n0 + n) * tile.w_stride;
  const std::int64_t groups = tile.k / kGroupNumel;
  const std::int64_t ahead = ahead_of_last(tile, t0, X);
  LinesAhead evenly = lines_ahead(tile, t0, X, n0, W);
  __m512 strands[16];
  for (__m512& strand : strands) strand = _mm512_setzero_ps();
  for (std::int64_t group = 0; group < groups; ++group) {
    __m512bh left[X][2];
    for (int t = 0; t < X; ++t) Bf16Row::get(x[t] + group * kXGroupBytes, left[t]);
    if constexpr (kEvenly) {
      for (std::int64_t line = 0; line < evenly.per_group; ++line, evenly.next += kLineBytes) {
        _mm_prefetch(evenly.next, _MM_HINT_T1);
      }
    }
    for (int n = 0; n < W; ++n) {
      __m512bh right[2];
      const std::byte* w_group = w[n] + group * Row::kGroupBytes;
      Row::get(w_group, right);
      if constexpr (!kEvenly) {
        _mm_prefetch(w_group + ahead, _MM_HINT_T1);
        if (Row::kGroupBytes > 96) _mm_prefetch(w_group + ahead + 64, _MM_HINT_T1);
      }
      if constexpr (Row::kScaled) {
        const __m512 scale = Row::scale(w_group);
        for (int t = 0; t < X; ++t) {
          __m512 sum = _mm512_dpbf16_ps(_mm512_setzero_ps(), left[t][0], right[0]);
          sum = _mm512_dpbf16_ps(sum, left[t][1], right[1]);
          strands[t * W + n] = _mm512_fmadd_ps(sum, scale, strands[t * W + n]);
        }
      } else {
        for (int t = 0; t < X; ++t) {
          __m512& strand = strands[t * W + n];
          strand = _mm512_dpbf16_ps(strand, left[t][0], right[0]);
          strand = _mm512_dpbf16_ps(strand, left[t][1], right[1]);
        }
      }
    }
  }
  const std::int64_t rest = tile.k % kGroupNumel;
  if (!Row::kScaled && rest > 0) {
    const std::uint64_t bits = (std::uint64_t{1} << rest) - 1;
    const auto low = static_cast<__mmask32>(bits);
    const auto high = static_cast<__mmask32>(bits >> 32);
    for (int n = 0; n < W; ++n) {
      const std::byte* from = w[n] + groups * Row::kGroupBytes;
      const __m512bh first = pairs(_mm512_maskz_loadu_epi16(low, from));
      const __m512bh last = pairs(_mm512_maskz_loadu_epi16(high, from + 64));
      for (int t = 0; t < X; ++t) {
        __m512bh left[2];
        Bf16Row::get(x[t] + groups * kXGroupBytes, left);
        __m512& strand = strands[t * W + n];
        strand = _mm512_dpbf16_ps(strand, left[0], first);
        strand = _mm512_dpbf16_ps(strand, left[1], last);
      }
    }
  }
  alignas(64) float totals[16];
  add_strands(strands, totals);
  for (int t = 0; t < X; ++t) {
    for (int n = 0; n < W; ++n) tile.sums[t0 + t][n0 + n] = totals[t * W + n];
  }
}

template <typename Row, int X, int W>
void multiply_rows(RowTile& tile, std::int64_t t) {
  std::int64_t n = 0;
  for (; n + W <= tile.w_rows; n += W) multiply_part<Row, X, W>(tile, t, n);
  for (; n < tile.w_rows; ++n) multiply_part<Row, X, 1>(tile, t, n);
}

/// Four by four loads least for a product; weights that are decoded are better shared by eight.
template <typename Row>
void multiply(RowTile& tile) {
  static_assert(kTileXRows == 8 && kTileWRows == 8);
  if (Row::kScaled && tile.x_rows == 8) return multiply_rows<Row, 8, 2>(tile, 0);
  std::int64_t t = 0;
  for (; t + 4 <= tile.x_rows; t += 4) multiply_rows<Row, 4, 4>(tile, t);
  const std::int64_t rest = tile.x_rows - t;
  if (rest == 3) multiply_rows<Row, 3, 4>(tile, t);
  if (rest == 2) multiply_rows<Row, 2, 8>(tile, t);
  if (rest == 1) multiply_rows<Row, 1, 8>(tile, t);
}

}  // namespace

bool has_avx512_bf16() {
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  return supported;
}

std::optional<RowKernel> bf16_row_kernel(Dtype weights) {
  if (!has_avx512_bf16()) return std::nullopt;
  if (weights == Dtype::kBf16) {
    return RowKernel{Dtype::kBf16, multiply<Bf16Row>};
  }
  if (weights == Dtype::kQ8) {
    return RowKernel{Dtype::kBf16, multiply<Q8Row>};
  }
  if (weights == Dtype::kQ4) {
    return RowKernel{Dtype::kBf16, multiply<Q4Row>};
  }
  return std::nullopt;
}

}  // namespace strata::cpu
