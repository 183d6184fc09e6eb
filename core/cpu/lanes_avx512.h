#pragma once

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/paged_kv.h"

// What LanesOverPages is made of: loops over vectors of 16 tokens (scores) or of 16 elements
// (values), for R lanes at a time. A vector of the page is read once for all of them.

#define STRATA_LANES gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")
#define STRATA_LANES_INLINE STRATA_LANES, gnu::always_inline

namespace strata::cpu::over_pages {

constexpr std::int64_t kVectors = kPageTokens / 16;
constexpr std::int64_t kGroupWords = kGroupNumel / 2;  // of a lane's factors for one group
constexpr std::int64_t kLineBytes = 64;
constexpr std::int64_t kMostLanes = 4;

/// Magnitudes of whole numbers of a group are up to this: two bytes, of 128 and 1, hold them.
constexpr float kHighest = 127 * 128;

/// What adding a page needs: R lanes.
struct Lanes {
  const KvHeadLayout* layout;
  const std::byte* head;
  std::ptrdiff_t ahead;
  float scale;
  const std::uint64_t* seen;
  std::int64_t padded;
  const std::uint32_t* queries;
  const float* query_steps;
  const std::int32_t* query_sums;
  float* outputs;
  float* maximum;
  float* sum;
};

/// Tokens that any lane sees.
struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

[[STRATA_LANES_INLINE]] inline __m512i get(const std::byte* from, std::ptrdiff_t ahead) {
  _mm_prefetch(from + ahead, _MM_HINT_T1);
  return _mm512_loadu_si512(from);
}
[[STRATA_LANES_INLINE]] inline __m512i all(std::uint32_t word) {
  return _mm512_set1_epi32(static_cast<std::int32_t>(word));
}
[[STRATA_LANES_INLINE]] inline __m512 multiply_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
[[STRATA_LANES_INLINE]] inline __m512 sixteen_floats(const bf16* from) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

/// As exponential() of numeric.h, but for the last bit.
[[STRATA_LANES_INLINE]] inline __m512 exponentials(__m512 x) {
  // NaN is the second operand, which is what the maximum of NaN is.
  const __m512 clamped = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
  const __m512 multiple =
      _mm512_roundscale_ps(_mm512_mul_ps(clamped, _mm512_set1_ps(1.44269504088896341f)),
                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(multiple, _mm512_set1_ps(0.693359375f), clamped);
  r = _mm512_fmadd_ps(multiple, _mm512_set1_ps(2.12194440e-4f), r);
  __m512 polynomial = _mm512_set1_ps(1.9875691500e-4f);
  polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(1.3981999507e-3f));
  polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(8.3334519073e-3f));
  polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(4.1665795894e-2f));
  polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(1.6666665459e-1f));
  polynomial = _mm512_fmadd_ps(polynomial, r, _mm512_set1_ps(5.0000001201e-1f));
  const __m512 mantissa =
      _mm512_add_ps(_mm512_fmadd_ps(polynomial, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(mantissa, multiple);
}

/// Takes the scores of one lane in: they become exp(score - new maximum), 0 for tokens it does not
/// see. @return by what everything before shrinks
[[STRATA_LANES_INLINE]] inline float take_scores(__m512 (&scores)[kVectors], std::uint64_t seen,
                                                 float& maximum, float& sum) {
  const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int v = 0; v < kVectors; ++v) {
    scores[v] = _mm512_mask_mov_ps(nothing, static_cast<__mmask16>(seen >> (16 * v)), scores[v]);
  }
  const __m512 highest =
      _mm512_max_ps(_mm512_max_ps(scores[0], scores[1]), _mm512_max_ps(scores[2], scores[3]));
  const float now = std::max(maximum, _mm512_reduce_max_ps(highest));
  const __m512 less = _mm512_set1_ps(now);
  for (int v = 0; v < kVectors; ++v) scores[v] = exponentials(_mm512_sub_ps(scores[v], less));
  const float shrink = _mm512_cvtss_f32(exponentials(_mm512_set1_ps(maximum - now)));
  const float added = _mm512_reduce_add_ps(
      _mm512_add_ps(_mm512_add_ps(scores[0], scores[1]), _mm512_add_ps(scores[2], scores[3])));
  sum = sum * shrink + added;
  maximum = now;
  return shrink;
}

template <typename Page, int R>
[[STRATA_LANES]] void add_part(const Lanes& in) {
  std::uint64_t any = 0;
  for (int r = 0; r < R; ++r) any |= in.seen[r];
  if (any == 0) return;
  const TokenRange tokens{std::countr_zero(any), 64 - std::countl_zero(any)};
  __m512 scores[R][kVectors];
  Page::template find_scores<R>(in, scores);
  float shrink[R];
  for (int r = 0; r < R; ++r) {
    shrink[r] = take_scores(scores[r], in.seen[r], in.maximum[r], in.sum[r]);
  }
  Page::template add_values<R>(in, tokens, shrink, scores);
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

/// The whole numbers of a group of a query, and their sum. @return what 1 means
float quantize_query(const bf16* query, std::uint32_t* words, std::int32_t& sum);
/// to = from times factor, 32 elements.
void store_scaled(const float* from, float factor, bf16* to);

}  // namespace strata::cpu::over_pages
