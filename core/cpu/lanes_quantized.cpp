#include "core/cpu/lanes_avx512.h"

namespace strata::cpu::over_pages {
namespace {

/// 64 whole numbers below 2^15 as upper and lower bytes: number = 128 upper + lower.
struct TwoBytes {
  __m512i upper;
  __m512i lower;
};
[[STRATA_LANES_INLINE]] inline TwoBytes two_bytes(const __m512i (&numbers)[4]) {
  __m512i upper[2], lower[2];
  for (int half = 0; half < 2; ++half) {
    const __m512i words = _mm512_packs_epi32(numbers[2 * half], numbers[2 * half + 1]);
    upper[half] = _mm512_srai_epi16(_mm512_add_epi16(words, _mm512_set1_epi16(64)), 7);
    lower[half] = _mm512_sub_epi16(words, _mm512_slli_epi16(upper[half], 7));
  }
  // Packed within 128 bits: four numbers of each of the vectors.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {_mm512_permutexvar_epi32(order, _mm512_packs_epi16(upper[0], upper[1])),
          _mm512_permutexvar_epi32(order, _mm512_packs_epi16(lower[0], lower[1]))};
}
/// What one of `largest` makes kHighest; 0 where that is none or no number.
[[STRATA_LANES_INLINE]] inline float steps_per_unit(float largest) {
  return largest > 1e-30f && largest < std::numeric_limits<float>::infinity() ? kHighest / largest
                                                                              : 0.0f;
}
[[STRATA_LANES_INLINE]] inline __m512i two_sums(__m512i upper, __m512i lower) {
  return _mm512_add_epi32(_mm512_slli_epi32(upper, 7), lower);
}

/// Factors of a group for R lanes, in fours of bytes.
template <int R>
struct Factors {
  const std::uint32_t* upper;
  const std::uint32_t* lower;
  std::int64_t stride;  ///< from lane to lane
};

/// Pages of kQ8 and kQ4: fours of lines come as bytes.
template <Dtype kDtype>
struct QuantizedPage {
  static constexpr std::int64_t kLines = KvHeadLayout::bundle_lines(kDtype);
  static constexpr int kFours = static_cast<int>(kLines / 4);

  /// sums[r, v] += what bundles [begin, end) give, line by line times the factors. `bundle` lies
  /// `stride` bytes before the next.
  template <int R, int V>
  [[STRATA_LANES_INLINE]] static inline void add_bundles(
      const std::byte* bundles, std::int64_t stride, std::ptrdiff_t ahead, std::int64_t begin,
      std::int64_t end, const Factors<R>& factors, __m512i (&upper)[R][V], __m512i (&lower)[R][V]) {
    const __m512i low_halves = all(0x0f0f0f0fu);
    for (std::int64_t bundle = begin; bundle < end; ++bundle) {
      __m512i fours[kFours][V];
      for (int v = 0; v < V; ++v) {
        const __m512i words = get(bundles + bundle * stride + v * kLineBytes, ahead);
        if constexpr (kDtype == Dtype::kQ8) {
          fours[0][v] = words;
        } else {
          fours[0][v] = _mm512_and_si512(words, low_halves);
          fours[1][v] = _mm512_and_si512(_mm512_srli_epi32(words, 4), low_halves);
        }
      }
      for (int four = 0; four < kFours; ++four) {
        for (int r = 0; r < R; ++r) {
          const std::int64_t at = r * factors.stride + bundle * kFours + four;
          const __m512i first = all(factors.upper[at]), second = all(factors.lower[at]);
          for (int v = 0; v < V; ++v) {
            upper[r][v] = _mm512_dpbusd_epi32(upper[r][v], fours[four][v], first);
            lower[r][v] = _mm512_dpbusd_epi32(lower[r][v], fours[four][v], second);
          }
        }
      }
    }
  }

  /// Zero points, or what stands for zero.
  [[STRATA_LANES_INLINE]] static inline __m512i zeros(const Lanes& in, std::size_t offset,
                                                      std::int64_t group) {
    if constexpr (kDtype == Dtype::kQ8) return all(0x80808080u);
    return get(in.head + offset + group * kPageTokens, in.ahead);
  }
  [[STRATA_LANES_INLINE]] static inline const bf16* scales(const Lanes& in, std::size_t offset,
                                                           std::int64_t group) {
    const std::byte* from = in.head + offset + static_cast<std::size_t>(group * kPageTokens) * 2;
    _mm_prefetch(from + in.ahead, _MM_HINT_T1);
    _mm_prefetch(from + in.ahead + kLineBytes, _MM_HINT_T1);
    return reinterpret_cast<const bf16*>(from);
  }

  /// Scores of vectors [first, first + V) by one group.
  template <int R, int V>
  [[STRATA_LANES_INLINE]] static inline void add_scores(const Lanes& in, std::int64_t group,
                                                        int first, const bf16* key_scales,
                                                        __m512i points,
                                                        __m512 (&scores)[R][kVectors]) {
    __m512i upper[R][V], lower[R][V];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) upper[r][v] = lower[r][v] = _mm512_setzero_si512();
    }
    const std::uint32_t* queries = in.queries + group * kGroupWords;
    add_bundles<R, V>(in.head + in.layout->keys_of(group) + first * kLineBytes, 4 * kPageTokens,
                      in.ahead, 0, (in.layout->group_elements(group) + kLines - 1) / kLines,
                      Factors<R>{queries, queries + kGroupWords / 2, in.padded / 2}, upper, lower);
    for (int v = 0; v < V; ++v) {
      const __m512 scale = sixteen_floats(key_scales + 16 * (first + v));
      alignas(64) std::uint8_t bytes[kPageTokens];
      _mm512_store_si512(bytes, points);
      const __m512i zero = _mm512_cvtepu8_epi32(
          _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + 16 * (first + v))));
      for (int r = 0; r < R; ++r) {
        const std::int64_t at = r * in.layout->groups + group;
        const __m512i less = _mm512_mullo_epi32(zero, _mm512_set1_epi32(in.query_sums[at]));
        const __m512 sum =
            _mm512_cvtepi32_ps(_mm512_sub_epi32(two_sums(upper[r][v], lower[r][v]), less));
        scores[r][first + v] = _mm512_fmadd_ps(
            _mm512_mul_ps(sum, _mm512_set1_ps(in.query_steps[at])), scale, scores[r][first + v]);
      }
    }
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void find_scores(const Lanes& in,
                                                         __m512 (&scores)[R][kVectors]) {
    constexpr int V = R <= 2 ? 4 : 2;
    for (auto& lane : scores) {
      for (__m512& vector : lane) vector = _mm512_setzero_ps();
    }
    for (std::int64_t group = 0; group < in.layout->groups; ++group) {
      const bf16* key_scales = scales(in, in.layout->key_scales, group);
      const __m512i points = zeros(in, in.layout->key_zeros, group);
      for (int first = 0; first < kVectors; first += V) {
        add_scores<R, V>(in, group, first, key_scales, points, scores);
      }
    }
  }

  /// Probabilities times the scales of a group, as whole numbers.
  template <int R>
  struct Weights {
    alignas(64) std::uint32_t upper[R][kPageTokens / 4];
    alignas(64) std::uint32_t lower[R][kPageTokens / 4];
    float step[R];         ///< what 1 means
    std::int32_t zero[R];  ///< their sum times zero points
  };
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void find_weights(const Lanes& in, std::int64_t group,
                                                          const __m512 (&scores)[R][kVectors],
                                                          Weights<R>& weights) {
    const bf16* value_scales = scales(in, in.layout->value_scales, group);
    const __m512i points = zeros(in, in.layout->value_zeros, group);
    __m512 scale[kVectors];
    for (int v = 0; v < kVectors; ++v) scale[v] = sixteen_floats(value_scales + 16 * v);
    for (int r = 0; r < R; ++r) {
      __m512 products[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        products[v] = _mm512_maskz_mul_ps(static_cast<__mmask16>(in.seen[r] >> (16 * v)),
                                          scores[r][v], scale[v]);
      }
      const __m512 largest = _mm512_max_ps(_mm512_max_ps(products[0], products[1]),
                                           _mm512_max_ps(products[2], products[3]));
      // Zero, unless one is not finite.
      const __m512 sums = _mm512_add_ps(_mm512_add_ps(products[0], products[1]),
                                        _mm512_add_ps(products[2], products[3]));
      const __mmask16 finite = _mm512_cmp_ps_mask(
          sums, _mm512_set1_ps(std::numeric_limits<float>::infinity()), _CMP_LT_OQ);
      const float most = _mm512_reduce_max_ps(largest);
      const float steps = steps_per_unit(most);
      __m512i numbers[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        numbers[v] = _mm512_cvtps_epi32(_mm512_mul_ps(products[v], _mm512_set1_ps(steps)));
      }
      const TwoBytes bytes = two_bytes(numbers);
      _mm512_store_si512(weights.upper[r], bytes.upper);
      _mm512_store_si512(weights.lower[r], bytes.lower);
      weights.step[r] =
          finite == 0xffff ? most / kHighest : std::numeric_limits<float>::quiet_NaN();
      const __m512i none = _mm512_setzero_si512();
      weights.zero[r] =
          _mm512_reduce_add_epi32(two_sums(_mm512_dpbusd_epi32(none, points, bytes.upper),
                                           _mm512_dpbusd_epi32(none, points, bytes.lower)));
    }
  }

  template <int R, int V>
  [[STRATA_LANES]] static void add_group(const Lanes& in, std::int64_t group, std::int64_t stride,
                                         std::int64_t first, const TokenRange& tokens,
                                         const float (&shrink)[R], const Weights<R>& weights) {
    __m512i upper[R][V], lower[R][V];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) upper[r][v] = lower[r][v] = _mm512_setzero_si512();
    }
    add_bundles<R, V>(in.head + in.layout->values_of(group) + first * kLineBytes, stride, in.ahead,
                      tokens.begin / kLines, (tokens.end + kLines - 1) / kLines,
                      Factors<R>{weights.upper[0], weights.lower[0], kPageTokens / 4}, upper,
                      lower);
    for (int r = 0; r < R; ++r) {
      float* to = in.outputs + r * in.padded + group * kGroupNumel + 16 * first;
      for (int v = 0; v < V; ++v) {
        const __m512i sum = _mm512_sub_epi32(two_sums(upper[r][v], lower[r][v]),
                                             _mm512_set1_epi32(weights.zero[r]));
        const __m512 before =
            _mm512_mul_ps(_mm512_loadu_ps(to + 16 * v), _mm512_set1_ps(shrink[r]));
        _mm512_storeu_ps(to + 16 * v, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                                      _mm512_set1_ps(weights.step[r]), before));
      }
    }
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void add_values(const Lanes& in, const TokenRange& tokens,
                                                        const float (&shrink)[R],
                                                        const __m512 (&scores)[R][kVectors]) {
    constexpr int kMost = R <= 2 ? 4 : 2;
    for (std::int64_t group = 0; group < in.layout->groups; ++group) {
      Weights<R> weights;
      find_weights<R>(in, group, scores, weights);
      const std::int64_t vectors = (in.layout->group_elements(group) + 15) / 16;
      std::int64_t first = 0;
      const std::int64_t stride = vectors * kLineBytes;
      for (; first + kMost <= vectors; first += kMost) {
        add_group<R, kMost>(in, group, stride, first, tokens, shrink, weights);
      }
      for (; first < vectors; ++first) {
        add_group<R, 1>(in, group, stride, first, tokens, shrink, weights);
      }
    }
  }
};

}  // namespace

void add_quantized_page(const Lanes& in, std::int64_t lanes) {
  if (in.layout->dtype == Dtype::kQ8) add_lanes<QuantizedPage<Dtype::kQ8>>(in, lanes);
  if (in.layout->dtype == Dtype::kQ4) add_lanes<QuantizedPage<Dtype::kQ4>>(in, lanes);
}

[[STRATA_LANES]] float quantize_query(const bf16* query, std::uint32_t* words, std::int32_t& sum) {
  __m512 elements[4];
  __m512 largest = _mm512_setzero_ps();
  __m512 nothing = _mm512_setzero_ps();  // unless one is not finite
  for (int v = 0; v < 4; ++v) {
    elements[v] = sixteen_floats(query + 16 * v);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(elements[v]));
    nothing = _mm512_fmadd_ps(elements[v], _mm512_setzero_ps(), nothing);
  }
  const float most = _mm512_reduce_max_ps(largest);
  const float steps = steps_per_unit(most);
  __m512i numbers[4];
  __m512i sums = _mm512_setzero_si512();
  for (int v = 0; v < 4; ++v) {
    numbers[v] = _mm512_cvtps_epi32(_mm512_mul_ps(elements[v], _mm512_set1_ps(steps)));
    sums = _mm512_add_epi32(sums, numbers[v]);
  }
  sum = _mm512_reduce_add_epi32(sums);
  const TwoBytes bytes = two_bytes(numbers);
  _mm512_storeu_si512(words, bytes.upper);
  _mm512_storeu_si512(words + 16, bytes.lower);
  return most / kHighest + _mm512_reduce_add_ps(nothing);
}

}  // namespace strata::cpu::over_pages
