#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "core/cpu/row_kernels.h"

#define STRATA_AVX512_BF16 gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")

namespace strata::cpu {
namespace {

constexpr std::int64_t kGroupBytes = 2 * kGroupNumel;
constexpr std::int64_t kLineBytes = 64;

[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512bh pairs(__m512i words) {
  return reinterpret_cast<__m512bh>(words);
}

/// A group: its first and its last 32 elements.
[[STRATA_AVX512_BF16, gnu::always_inline]] inline void get(const std::byte* group,
                                                           __m512bh (&to)[2]) {
  to[0] = pairs(_mm512_loadu_si512(group));
  to[1] = pairs(_mm512_loadu_si512(group + kLineBytes));
}

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
template <int X, int W>
[[STRATA_AVX512_BF16]] void multiply_part(RowTile& tile, std::int64_t t0, std::int64_t n0) {
  constexpr bool kEvenly = X == 4;
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
    for (int t = 0; t < X; ++t) get(x[t] + group * kGroupBytes, left[t]);
    if constexpr (kEvenly) {
      for (std::int64_t line = 0; line < evenly.per_group; ++line, evenly.next += kLineBytes) {
        _mm_prefetch(evenly.next, _MM_HINT_T1);
      }
    }
    for (int n = 0; n < W; ++n) {
      __m512bh right[2];
      const std::byte* w_group = w[n] + group * kGroupBytes;
      get(w_group, right);
      if constexpr (!kEvenly) {
        _mm_prefetch(w_group + ahead, _MM_HINT_T1);
        _mm_prefetch(w_group + ahead + kLineBytes, _MM_HINT_T1);
      }
      for (int t = 0; t < X; ++t) {
        __m512& strand = strands[t * W + n];
        strand = _mm512_dpbf16_ps(strand, left[t][0], right[0]);
        strand = _mm512_dpbf16_ps(strand, left[t][1], right[1]);
      }
    }
  }
  const std::int64_t rest = tile.k % kGroupNumel;
  if (rest > 0) {
    const std::uint64_t bits = (std::uint64_t{1} << rest) - 1;
    const auto low = static_cast<__mmask32>(bits);
    const auto high = static_cast<__mmask32>(bits >> 32);
    for (int n = 0; n < W; ++n) {
      const std::byte* from = w[n] + groups * kGroupBytes;
      const __m512bh first = pairs(_mm512_maskz_loadu_epi16(low, from));
      const __m512bh last = pairs(_mm512_maskz_loadu_epi16(high, from + kLineBytes));
      for (int t = 0; t < X; ++t) {
        __m512bh left[2];
        get(x[t] + groups * kGroupBytes, left);
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

template <int X, int W>
void multiply_rows(RowTile& tile, std::int64_t t) {
  std::int64_t n = 0;
  for (; n + W <= tile.w_rows; n += W) multiply_part<X, W>(tile, t, n);
  for (; n < tile.w_rows; ++n) multiply_part<X, 1>(tile, t, n);
}

/// Four by four loads least for a product.
void multiply(RowTile& tile) {
  static_assert(kTileXRows == 8 && kTileWRows == 8);
  std::int64_t t = 0;
  for (; t + 4 <= tile.x_rows; t += 4) multiply_rows<4, 4>(tile, t);
  const std::int64_t rest = tile.x_rows - t;
  if (rest == 3) multiply_rows<3, 4>(tile, t);
  if (rest == 2) multiply_rows<2, 8>(tile, t);
  if (rest == 1) multiply_rows<1, 8>(tile, t);
}

}  // namespace

bool has_avx512_bf16() {
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return supported;
}

std::optional<RowKernel> bf16_row_kernel(Dtype weights) {
  if (!has_avx512_bf16() || weights != Dtype::kBf16) return std::nullopt;
  return RowKernel{Dtype::kBf16, multiply};
}

}  // namespace strata::cpu
