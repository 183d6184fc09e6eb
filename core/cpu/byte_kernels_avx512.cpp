#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "core/cpu/byte_kernels.h"

#define STRATA_VNNI gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#define STRATA_VNNI_INLINE STRATA_VNNI, gnu::always_inline

namespace strata::cpu {
namespace {

constexpr std::int64_t kVectors = kGroupNumel / 16;
constexpr std::int64_t kHalves = kUnpackedRows / 16;
constexpr std::int64_t kPartRows = 4;
constexpr std::int64_t kLineBytes = 64;

/// Sixteen rows of w.
struct SixteenRows {
  const std::byte* at[16];
};

/// Sixteen bytes of rows r, r + 4, r + 8 and r + 12. Broadcasts of which a part is kept take no
/// turn among the shuffles.
[[STRATA_VNNI_INLINE]] inline __m512i every_fourth(const SixteenRows& rows, int r,
                                                   std::int64_t offset) {
  const auto sixteen = [&](int row) __attribute__((always_inline)) {
    return reinterpret_cast<const __m128i*>(rows.at[row] + offset);
  };
  __m512i all = _mm512_castsi128_si512(_mm_loadu_si128(sixteen(r)));
  all = _mm512_mask_broadcast_i32x4(all, 0x00f0, _mm_loadu_si128(sixteen(r + 4)));
  all = _mm512_mask_broadcast_i32x4(all, 0x0f00, _mm_loadu_si128(sixteen(r + 8)));
  return _mm512_mask_broadcast_i32x4(all, 0xf000, _mm_loadu_si128(sixteen(r + 12)));
}

/// Sixteen bytes of each row: the first, second, third and fourth four of all rows.
[[STRATA_VNNI_INLINE]] inline void get_quads(const SixteenRows& rows, std::int64_t offset,
                                             __m512i (&to)[4]) {
  __m512i in[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) in[r] = every_fourth(rows, r, offset);
  const __m512i low01 = _mm512_unpacklo_epi32(in[0], in[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(in[2], in[3]);
  const __m512i high01 = _mm512_unpackhi_epi32(in[0], in[1]);
  const __m512i high23 = _mm512_unpackhi_epi32(in[2], in[3]);
  to[0] = _mm512_unpacklo_epi64(low01, low23);
  to[1] = _mm512_unpackhi_epi64(low01, low23);
  to[2] = _mm512_unpacklo_epi64(high01, high23);
  to[3] = _mm512_unpackhi_epi64(high01, high23);
}

/// Groups of sixteen rows: their values without signs, four elements of all rows at a time.
struct Q8 {
  static constexpr std::int64_t kHead = 2;
  static constexpr std::int64_t kBytes = group_bytes(Dtype::kQ8);

  /// Values are kept with 128 more, so that they have no sign.
  [[STRATA_VNNI_INLINE]] static inline __m512i zero_points(__m512i) {
    return _mm512_set1_epi32(128);
  }
  [[STRATA_VNNI_INLINE]] static inline void get(const SixteenRows& rows, std::int64_t offset,
                                                std::uint8_t (*to)[kUnpackedRows][4]) {
    const __m512i sign = _mm512_set1_epi8(-128);
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      __m512i quads[4];
      get_quads(rows, offset + 16 * quarter, quads);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        _mm512_store_si512(to[4 * quarter + c], _mm512_xor_si512(quads[c], sign));
      }
    }
  }
};

struct Q4 {
  static constexpr std::int64_t kHead = 3;
  static constexpr std::int64_t kBytes = group_bytes(Dtype::kQ4);

  [[STRATA_VNNI_INLINE]] static inline __m512i zero_points(__m512i heads) {
    return _mm512_and_si512(_mm512_srli_epi32(heads, 16), _mm512_set1_epi32(255));
  }
  [[STRATA_VNNI_INLINE]] static inline void get(const SixteenRows& rows, std::int64_t offset,
                                                std::uint8_t (*to)[kUnpackedRows][4]) {
    const __m512i low_half = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m512i quads[4];
      get_quads(rows, offset + 16 * half, quads);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const __m512i high = _mm512_srli_epi16(quads[c], 4);
        _mm512_store_si512(to[4 * half + c], _mm512_and_si512(quads[c], low_half));
        _mm512_store_si512(to[8 + 4 * half + c], _mm512_and_si512(high, low_half));
      }
    }
  }
};

/// The first four bytes of every group: the scale, and the zero point where there is one.
template <typename Group>
void copy_heads(const SixteenRows& rows, std::int64_t groups, std::uint32_t (*to)[16]) {
  for (std::int64_t g = 0; g < groups; ++g) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      std::memcpy(&to[g][r], rows.at[r] + g * Group::kBytes, sizeof to[g][r]);
    }
  }
}

[[gnu::always_inline]] inline void ask_for(std::int64_t lines, LinesAhead& ahead) {
  for (std::int64_t line = 0; line < lines; ++line, ahead.next += kLineBytes) {
    _mm_prefetch(ahead.next, _MM_HINT_T1);
  }
}

template <typename Group>
[[STRATA_VNNI]] void unpack_groups(const std::byte* w, std::int64_t stride, std::int64_t row_count,
                                   std::int64_t groups, LinesAhead& ahead, UnpackedWeights& to) {
  for (std::int64_t half = 0; half < kHalves; ++half) {
    SixteenRows rows;
    for (std::int64_t r = 0; r < 16; ++r) {
      rows.at[r] = w + std::min(row_count - 1, 16 * half + r) * stride;
    }
    alignas(64) std::uint32_t heads[kUnpackedGroups][16];
    copy_heads<Group>(rows, groups, heads);
    for (std::int64_t g = 0; g < groups; ++g) {
      ask_for(ahead.of_unpacking, ahead);
      const __m512i head = _mm512_load_si512(heads[g]);
      _mm512_store_si512(to.scales[g] + 16 * half, _mm512_slli_epi32(head, 16));
      _mm512_store_si512(to.zero_points[g] + 16 * half, Group::zero_points(head));
      Group::get(
          rows, g * Group::kBytes + Group::kHead,
          reinterpret_cast<std::uint8_t(*)[kUnpackedRows][4]>(&to.values[g][0][16 * half][0]));
    }
  }
}

[[STRATA_VNNI_INLINE]] inline __m512i four_bytes(const std::int8_t* from) {
  std::int32_t word;
  std::memcpy(&word, from, sizeof word);
  return _mm512_set1_epi32(word);
}

[[STRATA_VNNI_INLINE]] inline __m512 scales_of(const std::uint16_t* bf16_numbers) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bf16_numbers));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

// Where products find weights: of group g and the sixteen rows of half h.

struct FromUnpacked {
  const UnpackedWeights& w;

  [[STRATA_VNNI_INLINE]] inline __m512i quads(std::int64_t g, std::int64_t q, int h) const {
    return _mm512_load_si512(w.values[g][q][16 * h]);
  }
  [[STRATA_VNNI_INLINE]] inline __m512i zero_points(std::int64_t g, int h) const {
    return _mm512_load_si512(w.zero_points[g] + 16 * h);
  }
  [[STRATA_VNNI_INLINE]] inline __m512 scales(std::int64_t g, int h) const {
    return _mm512_load_ps(w.scales[g] + 16 * h);
  }
};

struct FromInterleavedQ8 {
  const InterleavedQ8* w;

  [[STRATA_VNNI_INLINE]] inline __m512i quads(std::int64_t g, std::int64_t q, int h) const {
    return _mm512_loadu_si512(w[g].values[q][16 * h]);
  }
  [[STRATA_VNNI_INLINE]] inline __m512i zero_points(std::int64_t, int) const {
    return _mm512_set1_epi32(128);
  }
  [[STRATA_VNNI_INLINE]] inline __m512 scales(std::int64_t g, int h) const {
    return scales_of(w[g].scales + 16 * h);
  }
};

struct FromInterleavedQ4 {
  const InterleavedQ4* w;

  [[STRATA_VNNI_INLINE]] inline __m512i quads(std::int64_t g, std::int64_t q, int h) const {
    const __m512i pairs = _mm512_loadu_si512(w[g].values[q % InterleavedQ4::kPairs][16 * h]);
    const __m512i low_half = _mm512_set1_epi8(15);
    if (q < InterleavedQ4::kPairs) return _mm512_and_si512(pairs, low_half);
    return _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low_half);
  }
  [[STRATA_VNNI_INLINE]] inline __m512i zero_points(std::int64_t g, int h) const {
    const auto* from = reinterpret_cast<const __m128i*>(w[g].zero_points + 16 * h);
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(from));
  }
  [[STRATA_VNNI_INLINE]] inline __m512 scales(std::int64_t g, int h) const {
    return scales_of(w[g].scales + 16 * h);
  }
};

/// X rows of x. Zero points are words, so one product of words takes them off a sum. Sums of one
/// row are taken in two chains, as there are too few of them to wait for each other.
template <int X, typename Weights>
[[STRATA_VNNI]] void add_part(const Weights& w, const ByteRows& x, std::int64_t row,
                              std::int64_t first, std::int64_t groups, LinesAhead& ahead,
                              float (*sums)[kUnpackedRows]) {
  const std::int8_t* values[X];
  const ByteGroup* facts[X];
  __m512 totals[X][kHalves];
#pragma GCC unroll 8
  for (int t = 0; t < X; ++t) {
    values[t] = x.values + (row + t) * x.stride + first * kGroupNumel;
    facts[t] = x.groups + (row + t) * x.group_count + first;
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) totals[t][h] = _mm512_load_ps(sums[t] + 16 * h);
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    ask_for(ahead.of_products, ahead);
    constexpr int kChains = X == 1 ? 2 : 1;
    __m512i whole[kChains][X][kHalves];
#pragma GCC unroll 8
    for (int t = 0; t < X; ++t) {
      const __m512i negative_sum = _mm512_set1_epi32(facts[t][g].negative_sum);
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) {
        const __m512i zero_points = w.zero_points(g, h);
        whole[kChains - 1][t][h] = _mm512_setzero_si512();
        whole[0][t][h] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zero_points, negative_sum);
      }
    }
#pragma GCC unroll 16
    for (std::int64_t q = 0; q < UnpackedWeights::kQuads; ++q) {
      __m512i quads[kHalves];
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) quads[h] = w.quads(g, q, h);
#pragma GCC unroll 8
      for (int t = 0; t < X; ++t) {
        const __m512i four = four_bytes(values[t] + g * kGroupNumel + 4 * q);
#pragma GCC unroll 8
        for (int h = 0; h < kHalves; ++h) {
          __m512i& sum = whole[q % kChains][t][h];
          sum = _mm512_dpbusd_epi32(sum, quads[h], four);
        }
      }
    }
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) {
      const __m512 scales = w.scales(g, h);
#pragma GCC unroll 8
      for (int t = 0; t < X; ++t) {
        const __m512 step = _mm512_mul_ps(scales, _mm512_set1_ps(facts[t][g].step));
        __m512i sum = whole[0][t][h];
        if (kChains == 2) sum = _mm512_add_epi32(sum, whole[1][t][h]);
        totals[t][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), step, totals[t][h]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < X; ++t) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) _mm512_store_ps(sums[t] + 16 * h, totals[t][h]);
  }
}

template <typename Weights>
void add_parts(const Weights& w, const ByteRows& x, std::int64_t row, std::int64_t rows,
               std::int64_t first, std::int64_t groups, LinesAhead& ahead,
               float (*sums)[kUnpackedRows]) {
  std::int64_t t = 0;
  for (; t + kPartRows <= rows; t += kPartRows) {
    add_part<kPartRows>(w, x, row + t, first, groups, ahead, sums + t);
  }
  if (rows - t == 3) add_part<3>(w, x, row + t, first, groups, ahead, sums + t);
  if (rows - t == 2) add_part<2>(w, x, row + t, first, groups, ahead, sums + t);
  if (rows - t == 1) add_part<1>(w, x, row + t, first, groups, ahead, sums + t);
}

[[STRATA_VNNI]] void round_group(const float* x, std::int8_t* values, ByteGroup& to) {
  __m512 vectors[kVectors];
  __m512i largest = _mm512_setzero_si512();  // as integers, numbers that are not finite are largest
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    vectors[v] = _mm512_loadu_ps(x + 16 * v);
    const __m512i magnitude =
        _mm512_and_si512(_mm512_castps_si512(vectors[v]), _mm512_set1_epi32(0x7fffffff));
    largest = _mm512_max_epi32(largest, magnitude);
  }
  const std::int32_t bits = _mm512_reduce_max_epi32(largest);
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof bits);
  const bool nothing = magnitude < 1e-30f;
  to.step = nothing ? 0.0f : magnitude / 127.0f;
  const __m512 factor = _mm512_set1_ps(nothing ? 0.0f : 127.0f / magnitude);
  __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(vectors[v], factor));
    const __m128i bytes = _mm512_cvtsepi32_epi8(whole);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 16 * v), bytes);
    sum = _mm512_add_epi32(sum, _mm512_cvtepi8_epi32(bytes));
  }
  to.negative_sum = -_mm512_reduce_add_epi32(sum);
}

}  // namespace

/// Of few rows, products take less time than unpacking does.
LinesAhead lines_ahead(const std::byte* next, std::int64_t lines, std::int64_t groups,
                       std::int64_t rows, bool unpacks) {
  const std::int64_t parts = (rows + kPartRows - 1) / kPartRows;
  const std::int64_t halves = unpacks && parts == 1 ? kHalves : 0;
  const std::int64_t shares = std::max<std::int64_t>(1, groups * (halves + parts));
  const std::int64_t share = (lines + shares - 1) / shares;
  return {next, halves > 0 ? share : 0, share};
}

bool has_avx512_vnni() {
  static const bool supported =
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return supported;
}

void round_to_bytes(const float* x, std::int64_t groups, std::int8_t* values, ByteGroup* to) {
  for (std::int64_t g = 0; g < groups; ++g) {
    round_group(x + g * kGroupNumel, values + g * kGroupNumel, to[g]);
  }
}

void unpack(Dtype dtype, const std::byte* w, std::int64_t stride, std::int64_t rows,
            std::int64_t groups, LinesAhead& ahead, UnpackedWeights& to) {
  if (dtype == Dtype::kQ8) unpack_groups<Q8>(w, stride, rows, groups, ahead, to);
  if (dtype == Dtype::kQ4) unpack_groups<Q4>(w, stride, rows, groups, ahead, to);
}

void add_byte_products(const UnpackedWeights& w, const ByteRows& x, std::int64_t row,
                       std::int64_t rows, std::int64_t first, std::int64_t groups,
                       LinesAhead& ahead, float (*sums)[kUnpackedRows]) {
  add_parts(FromUnpacked{w}, x, row, rows, first, groups, ahead, sums);
}

void add_byte_products(Dtype dtype, const std::byte* w, const ByteRows& x, std::int64_t row,
                       std::int64_t rows, std::int64_t first, std::int64_t groups,
                       LinesAhead& ahead, float (*sums)[kUnpackedRows]) {
  if (dtype == Dtype::kQ8x32) {
    const FromInterleavedQ8 from{reinterpret_cast<const InterleavedQ8*>(w)};
    add_parts(from, x, row, rows, first, groups, ahead, sums);
  } else {
    const FromInterleavedQ4 from{reinterpret_cast<const InterleavedQ4*>(w)};
    add_parts(from, x, row, rows, first, groups, ahead, sums);
  }
}

}  // namespace strata::cpu
