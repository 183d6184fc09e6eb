#pragma once

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/paged_kv.h"

// What LanesOverPages is made of: loops over vectors of 16 tokens (scores) or of 16 elements
// (values), for R lanes at a time. A vector of the page is read once for all of them.
//
// Of sixteen floats by lane, the four numbers 4 r .. 4 r + 3 belong to lane r and are the same.

#define STRATA_LANES gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")
#define STRATA_LANES_INLINE STRATA_LANES, gnu::always_inline

namespace strata::cpu::over_pages {

constexpr std::int64_t kVectors = kPageTokens / 16;
constexpr std::int64_t kGroupWords = kGroupNumel / 2;  // of a lane's factors for one group
constexpr std::int64_t kLineBytes = 64;
constexpr std::int64_t kMostLanes = 4;

/// What adding a page needs: R lanes, but state of kMostLanes.
struct Lanes {
  const KvHeadLayout* layout;
  const std::byte* head;
  std::ptrdiff_t ahead;
  const std::uint64_t* seen;
  std::int64_t padded;           ///< elements of a lane
  const std::uint32_t* queries;  ///< padded / 2 of each lane
  const std::int32_t* query_sums;
  const float* score_steps;  ///< what scores are multiplied by: they are powers of two then
  float* outputs;
  float* maximum;
  float* sum;
};

/// Tokens that any lane sees.
struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

/// By lane: what outputs are multiplied by before a page's values, and these by.
struct Shares {
  __m512 before;
  __m512 page;
};

[[STRATA_LANES_INLINE]] inline __m512i get(const std::byte* from, std::ptrdiff_t ahead) {
  _mm_prefetch(from + ahead, _MM_HINT_T1);
  return _mm512_loadu_si512(from);
}
[[STRATA_LANES_INLINE]] inline __m512i all(std::uint32_t word) {
  return _mm512_set1_epi32(static_cast<std::int32_t>(word));
}
[[STRATA_LANES_INLINE]] inline __m512 sixteen_floats(const bf16* from) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

struct Add {
  [[STRATA_LANES_INLINE]] static inline __m512 of(__m512 a, __m512 b) {
    return _mm512_add_ps(a, b);
  }
};
/// The second where one is no number.
struct Maximum {
  [[STRATA_LANES_INLINE]] static inline __m512 of(__m512 a, __m512 b) {
    return _mm512_max_ps(a, b);
  }
};
/// By lane, what sixteen numbers of each make together.
template <typename Op, int R>
[[STRATA_LANES_INLINE]] inline __m512 by_lane(const __m512 (&lanes)[R]) {
  __m512 halves[2];
  for (int i = 0; i < 2; ++i) {
    const __m512 a = lanes[std::min(2 * i, R - 1)], b = lanes[std::min(2 * i + 1, R - 1)];
    halves[i] = Op::of(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  const __m512 fours = Op::of(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                              _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
  const __m512 twos = Op::of(fours, _mm512_permute_ps(fours, 0x4e));
  return Op::of(twos, _mm512_permute_ps(twos, 0xb1));
}
template <typename Op>
[[STRATA_LANES_INLINE]] inline __m512 together(const __m512 (&vectors)[kVectors]) {
  return Op::of(Op::of(vectors[0], vectors[1]), Op::of(vectors[2], vectors[3]));
}
/// Lane r's number, sixteen times.
[[STRATA_LANES_INLINE]] inline __m512 of_lane(__m512 numbers, int r) {
  const __m512i index = _mm512_set1_epi32(4 * r);
  return _mm512_permutexvar_ps(index, numbers);
}
[[STRATA_LANES_INLINE]] inline __m512 load_by_lane(const float* from) {
  const __m512i index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_loadu_ps(from)));
}
[[STRATA_LANES_INLINE]] inline void store_by_lane(float* to, __m512 numbers) {
  const __m512i index = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(index, numbers)));
}

/// 2^x for x <= 0, but for 3e-6 of it; exactly 1 for 0. NaN stays NaN.
[[STRATA_LANES_INLINE]] inline __m512 powers_of_two(__m512 x) {
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
  const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(bounded, whole);
  __m512 polynomial = _mm512_set1_ps(9.5828865611e-3f);
  polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(5.5906511283e-2f));
  polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(2.4024098560e-1f));
  polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(6.9312418353e-1f));
  polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(polynomial, whole);
}

/// Takes the scores of a page in: they become shares of its largest, 0 for tokens that the lane
/// does not see.
template <int R>
[[STRATA_LANES_INLINE]] inline Shares take_scores(const Lanes& in, __m512 (&scores)[R][kVectors]) {
  const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 totals[R];
  for (int r = 0; r < R; ++r) {
    const __m512 step = _mm512_set1_ps(in.score_steps[r]);
    for (int v = 0; v < kVectors; ++v) {
      scores[r][v] = _mm512_mask_mul_ps(nothing, static_cast<__mmask16>(in.seen[r] >> (16 * v)),
                                        scores[r][v], step);
    }
    totals[r] = together<Maximum>(scores[r]);
  }
  // Finite, so that it can be subtracted from what is not.
  const __m512 largest = _mm512_max_ps(_mm512_set1_ps(-1.0e30f), by_lane<Maximum>(totals));
  for (int r = 0; r < R; ++r) {
    const __m512 less = of_lane(largest, r);
    for (int v = 0; v < kVectors; ++v) {
      scores[r][v] = powers_of_two(_mm512_sub_ps(scores[r][v], less));
    }
    totals[r] = together<Add>(scores[r]);
  }
  const __m512 maximum = load_by_lane(in.maximum), now = _mm512_max_ps(maximum, largest);
  const Shares shares{powers_of_two(_mm512_sub_ps(maximum, now)),
                      powers_of_two(_mm512_sub_ps(largest, now))};
  const __m512 sum = _mm512_mul_ps(load_by_lane(in.sum), shares.before);
  store_by_lane(in.maximum, now);
  store_by_lane(in.sum, _mm512_fmadd_ps(by_lane<Add>(totals), shares.page, sum));
  return shares;
}

template <typename Page, int R>
[[STRATA_LANES]] void add_part(const Lanes& in) {
  std::uint64_t any = 0;
  for (int r = 0; r < R; ++r) any |= in.seen[r];
  if (any == 0) return;
  const TokenRange tokens{std::countr_zero(any), 64 - std::countl_zero(any)};
  __m512 scores[R][kVectors];
  Page::template find_scores<R>(in, scores);
  const Shares shares = take_scores<R>(in, scores);
  Page::template add_values<R>(in, tokens, shares, scores);
}

template <typename Page>
void add_lanes(const Lanes& in, std::int64_t lanes) {
  if (lanes == 1) add_part<Page, 1>(in);
  if (lanes == 2) add_part<Page, 2>(in);
  if (lanes == 3) add_part<Page, 3>(in);
  if (lanes == 4) add_part<Page, 4>(in);
}

/// For pages of bf16; of kQ8 and kQ4.
void add_bf16_page(const Lanes& in, std::int64_t lanes);
void add_quantized_page(const Lanes& in, std::int64_t lanes);

/// The whole numbers of a query [groups, kGroupNumel] for such pages, and the sum of each group.
/// @return what 1 means
float quantize_query(Dtype pages, const bf16* query, std::int64_t groups, std::uint32_t* words,
                     std::int32_t* sums);
/// to = from times factor, 32 elements.
void store_scaled(const float* from, float factor, bf16* to);

}  // namespace strata::cpu::over_pages
