#include "core/cpu/lanes_avx512.h"

namespace strata::cpu::over_pages {
namespace {

/// Factors of kQ8 are whole numbers of 15 bits in two bytes, 128 upper + lower; of kQ4, which are
/// off by more than that, of one byte.
template <Dtype kDtype>
constexpr int kBytes = kDtype == Dtype::kQ8 ? 2 : 1;
constexpr float kHighest = 127 * 128, kHighestByte = 127, kHighestWeight = 255;

/// Sums that stay in registers: as the instructions take them, or g++ 12 copies each of them.
using Ints [[gnu::vector_size(64)]] = std::int32_t;

/// Fours of unsigned bytes times signed ones.
[[STRATA_LANES_INLINE]] inline void add_fours(Ints& sum, __m512i a, __m512i b) {
  sum = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), a, b));
}

/// A number for each of kVectors * 16 tokens or elements in bytes, in order.
[[STRATA_LANES_INLINE]] inline __m512i in_order(__m512i bytes) {
  // Packed within 128 bits: four numbers of each of the vectors.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes);
}
struct TwoBytes {
  __m512i upper;
  __m512i lower;
};
[[STRATA_LANES_INLINE]] inline TwoBytes two_bytes(const __m512i (&numbers)[kVectors]) {
  __m512i upper[2], lower[2];
  for (int half = 0; half < 2; ++half) {
    const __m512i words = _mm512_packs_epi32(numbers[2 * half], numbers[2 * half + 1]);
    upper[half] = _mm512_srai_epi16(_mm512_add_epi16(words, _mm512_set1_epi16(64)), 7);
    lower[half] = _mm512_sub_epi16(words, _mm512_slli_epi16(upper[half], 7));
  }
  return {in_order(_mm512_packs_epi16(upper[0], upper[1])),
          in_order(_mm512_packs_epi16(lower[0], lower[1]))};
}
[[STRATA_LANES_INLINE]] inline __m512i signed_bytes(const __m512i (&numbers)[kVectors]) {
  return in_order(_mm512_packs_epi16(_mm512_packs_epi32(numbers[0], numbers[1]),
                                     _mm512_packs_epi32(numbers[2], numbers[3])));
}
[[STRATA_LANES_INLINE]] inline __m512i unsigned_bytes(const __m512i (&numbers)[kVectors]) {
  return in_order(_mm512_packus_epi16(_mm512_packs_epi32(numbers[0], numbers[1]),
                                      _mm512_packs_epi32(numbers[2], numbers[3])));
}

/// What makes `highest` of `largest`; 0 where that is next to nothing, or no number.
[[STRATA_LANES_INLINE]] inline float steps_per_unit(float highest, float largest) {
  return largest > 1e-30f && largest < std::numeric_limits<float>::infinity() ? highest / largest
                                                                              : 0.0f;
}

/// What is added to a weight of one byte before its fraction is dropped: it spreads over (0, 1)
/// from token to token, so that weights much below 1 are not lost together.
struct Spread {
  alignas(64) float of[kPageTokens];
};
constexpr Spread kSpread = [] {
  Spread spread{};
  for (int token = 0; token < kPageTokens; ++token) {
    int reversed = 0;
    for (int bit = 0; bit < 6; ++bit) reversed |= (token >> bit & 1) << (5 - bit);
    spread.of[token] = (static_cast<float>(reversed) + 0.5f) / 64;
  }
  return spread;
}();

/// Pages of kQ8 and kQ4: fours of lines come as bytes.
template <Dtype kDtype>
struct QuantizedPage {
  static constexpr int B = kBytes<kDtype>;
  static constexpr std::int64_t kLines = KvHeadLayout::bundle_lines(kDtype);
  static constexpr int kFours = static_cast<int>(kLines / 4);
  /// Vectors of sums for R lanes that registers hold.
  template <int R>
  static constexpr int kMost = R* B <= 4 ? 4 : 2;

  template <int R, int V>
  struct Sums {
    Ints of[B][R][V];

    [[STRATA_LANES_INLINE]] inline void clear() {
      for (auto& byte : of) {
        for (auto& lane : byte) {
          for (Ints& vector : lane) vector = Ints{};
        }
      }
    }
    [[STRATA_LANES_INLINE]] inline __m512 floats(int r, int v) const {
      Ints sum = of[0][r][v];
      if constexpr (B == 2) sum = 128 * sum + of[B - 1][r][v];
      return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(sum));
    }
  };

  /// The fours of bytes of V vectors of a bundle.
  template <int V>
  [[STRATA_LANES_INLINE]] static inline void get_fours(const std::byte* bundle,
                                                       std::ptrdiff_t ahead,
                                                       __m512i (&fours)[kFours][V]) {
    const __m512i low_halves = all(0x0f0f0f0fu);
    for (int v = 0; v < V; ++v) {
      const __m512i words = get(bundle + v * kLineBytes, ahead);
      if constexpr (kDtype == Dtype::kQ8) {
        fours[0][v] = words;
      } else {
        fours[0][v] = _mm512_and_si512(words, low_halves);
        fours[1][v] = _mm512_and_si512(_mm512_srli_epi32(words, 4), low_halves);
      }
    }
  }

  // Keys.

  template <int R, int V>
  [[STRATA_LANES_INLINE]] static inline void add_keys(const Lanes& in, std::int64_t group,
                                                      int first, Sums<R, V>& sums) {
    const std::byte* bundle = in.head + in.layout->keys_of(group) + first * kLineBytes;
    const std::uint32_t* queries = in.queries + group * kGroupWords;
    const std::int64_t bundles = (in.layout->group_elements(group) + kLines - 1) / kLines;
    for (std::int64_t i = 0; i < bundles; ++i, bundle += 4 * kPageTokens, queries += kFours) {
      __m512i fours[kFours][V];
      get_fours<V>(bundle, in.ahead, fours);
      for (int four = 0; four < kFours; ++four) {
        for (int r = 0; r < R; ++r) {
          for (int byte = 0; byte < B; ++byte) {
            const __m512i query = all(queries[r * in.padded / 2 + byte * kGroupWords / 2 + four]);
            for (int v = 0; v < V; ++v) {
              add_fours(sums.of[byte][r][v], fours[four][v], query);
            }
          }
        }
      }
    }
  }
  /// Scores of vectors [first, first + V) by one group.
  template <int R, int V>
  [[STRATA_LANES_INLINE]] static inline void add_scores(const Lanes& in, std::int64_t group,
                                                        int first, const bf16* scales,
                                                        const std::byte* zeros,
                                                        __m512 (&scores)[R][kVectors]) {
    Sums<R, V> sums;
    sums.clear();
    const std::int32_t* query_sums = in.query_sums + group;
    for (int r = 0; r < R && kDtype == Dtype::kQ8; ++r) {
      for (Ints& sum : sums.of[B - 1][r]) sum -= 128 * query_sums[r * in.layout->groups];
    }
    add_keys<R, V>(in, group, first, sums);
    for (int v = 0; v < V; ++v) {
      const __m512 scale = sixteen_floats(scales + 16 * (first + v));
      __m512 zero = _mm512_setzero_ps();
      if constexpr (kDtype == Dtype::kQ4) {
        const auto* points = reinterpret_cast<const __m128i*>(zeros + 16 * (first + v));
        zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(points)));
      }
      for (int r = 0; r < R; ++r) {
        __m512 sum = sums.floats(r, v);
        if constexpr (kDtype == Dtype::kQ4) {
          const auto query_sum = static_cast<float>(query_sums[r * in.layout->groups]);
          sum = _mm512_fnmadd_ps(zero, _mm512_set1_ps(query_sum), sum);
        }
        scores[r][first + v] = _mm512_fmadd_ps(sum, scale, scores[r][first + v]);
      }
    }
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void find_scores(const Lanes& in,
                                                         __m512 (&scores)[R][kVectors]) {
    constexpr int V = kMost<R>;
    for (auto& lane : scores) {
      for (__m512& vector : lane) vector = _mm512_setzero_ps();
    }
    for (std::int64_t group = 0; group < in.layout->groups; ++group) {
      const bf16* key_scales = scales(in, in.layout->key_scales, group);
      const std::byte* key_zeros = zeros(in, in.layout->key_zeros, group);
      for (int first = 0; first < kVectors; first += V) {
        add_scores<R, V>(in, group, first, key_scales, key_zeros, scores);
      }
    }
  }
  [[STRATA_LANES_INLINE]] static inline const bf16* scales(const Lanes& in, std::size_t offset,
                                                           std::int64_t group) {
    const std::byte* from = in.head + offset + group * kPageTokens * 2;
    _mm_prefetch(from + in.ahead, _MM_HINT_T1);
    _mm_prefetch(from + in.ahead + kLineBytes, _MM_HINT_T1);
    return reinterpret_cast<const bf16*>(from);
  }
  [[STRATA_LANES_INLINE]] static inline const std::byte* zeros(const Lanes& in, std::size_t offset,
                                                               std::int64_t group) {
    const std::byte* from = in.head + offset + group * kPageTokens;
    if (kDtype == Dtype::kQ4) _mm_prefetch(from + in.ahead, _MM_HINT_T1);
    return from;
  }

  // Values.

  /// Probabilities times the scales of a group, as whole numbers.
  template <int R>
  struct Weights {
    alignas(64) std::uint32_t of[R][B][kPageTokens / 4];
    float step[R];  ///< what 1 means
    __m512 zero;    ///< by lane: their sum times zero points
  };
  /// What a lane's probabilities are multiplied by to be whole numbers. @return what 1 means then
  [[STRATA_LANES_INLINE]] static inline float find_multiples(const bf16* scales, std::uint64_t seen,
                                                             __m512 (&multiples)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) {
      multiples[v] = _mm512_maskz_mov_ps(static_cast<__mmask16>(seen >> (16 * v)),
                                         sixteen_floats(scales + 16 * v));
    }
    const __mmask16 finite =
        _mm512_cmp_ps_mask(together<Add>(multiples),
                           _mm512_set1_ps(std::numeric_limits<float>::infinity()), _CMP_LT_OQ);
    const float largest = _mm512_reduce_max_ps(together<Maximum>(multiples));
    constexpr float kOf = kDtype == Dtype::kQ8 ? kHighest : kHighestWeight;
    const __m512 steps = _mm512_set1_ps(steps_per_unit(kOf, largest));
    for (__m512& multiple : multiples) multiple = _mm512_mul_ps(multiple, steps);
    return finite == 0xffff ? largest / kOf : std::numeric_limits<float>::quiet_NaN();
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void find_weights(const Lanes& in, std::int64_t group,
                                                          const __m512 (&scores)[R][kVectors],
                                                          Weights<R>& weights) {
    const bf16* value_scales = scales(in, in.layout->value_scales, group);
    const std::byte* value_zeros = zeros(in, in.layout->value_zeros, group);
    __m512i points = all(0x80808080u);
    if constexpr (kDtype == Dtype::kQ4) points = _mm512_loadu_si512(value_zeros);
    __m512 multiples[kVectors];
    __m512 zero[R];
    for (int r = 0; r < R; ++r) {
      if (r == 0 || in.seen[r] != in.seen[r - 1]) {
        weights.step[r] = find_multiples(value_scales, in.seen[r], multiples);
      } else {
        weights.step[r] = weights.step[r - 1];
      }
      __m512i numbers[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (B == 2) {
          numbers[v] = _mm512_cvtps_epi32(_mm512_mul_ps(scores[r][v], multiples[v]));
        } else {
          const __m512 spread = _mm512_load_ps(kSpread.of + 16 * v);
          numbers[v] = _mm512_cvttps_epi32(_mm512_fmadd_ps(scores[r][v], multiples[v], spread));
        }
      }
      Sums<1, 1> sums;
      sums.clear();
      if constexpr (B == 2) {
        const TwoBytes bytes = two_bytes(numbers);
        _mm512_store_si512(weights.of[r][0], bytes.upper);
        _mm512_store_si512(weights.of[r][B - 1], bytes.lower);
        add_fours(sums.of[0][0][0], points, bytes.upper);
        add_fours(sums.of[B - 1][0][0], points, bytes.lower);
      } else {
        const __m512i bytes = unsigned_bytes(numbers);
        _mm512_store_si512(weights.of[r][0], bytes);
        add_fours(sums.of[0][0][0], bytes, points);
      }
      zero[r] = sums.floats(0, 0);
    }
    weights.zero = by_lane<Add>(zero);
  }

  template <int R, int V>
  [[STRATA_LANES]] static void add_group(const Lanes& in, std::int64_t group, std::int64_t stride,
                                         std::int64_t first, const TokenRange& tokens,
                                         const Shares& shares, const Weights<R>& weights) {
    Sums<R, V> sums;
    sums.clear();
    std::int64_t i = tokens.begin / kLines;
    const std::byte* bundle =
        in.head + in.layout->values_of(group) + first * kLineBytes + i * stride;
    for (; i * kLines < tokens.end; ++i, bundle += stride) {
      __m512i fours[kFours][V];
      get_fours<V>(bundle, in.ahead, fours);
      for (int four = 0; four < kFours; ++four) {
        for (int r = 0; r < R; ++r) {
          for (int byte = 0; byte < B; ++byte) {
            const __m512i weight = all(weights.of[r][byte][i * kFours + four]);
            for (int v = 0; v < V; ++v) {
              Ints& sum = sums.of[byte][r][v];
              if constexpr (B == 2) add_fours(sum, fours[four][v], weight);
              if constexpr (B == 1) add_fours(sum, weight, fours[four][v]);
            }
          }
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      float* to = in.outputs + r * in.padded + group * kGroupNumel + 16 * first;
      const __m512 before = of_lane(shares.before, r);
      const __m512 step = _mm512_mul_ps(of_lane(shares.page, r), _mm512_set1_ps(weights.step[r]));
      const __m512 less = _mm512_mul_ps(of_lane(weights.zero, r), step);
      for (int v = 0; v < V; ++v) {
        const __m512 output = _mm512_fmsub_ps(_mm512_loadu_ps(to + 16 * v), before, less);
        _mm512_storeu_ps(to + 16 * v, _mm512_fmadd_ps(sums.floats(r, v), step, output));
      }
    }
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void add_values(const Lanes& in, const TokenRange& tokens,
                                                        const Shares& shares,
                                                        const __m512 (&scores)[R][kVectors]) {
    constexpr int V = kMost<R>;
    for (std::int64_t group = 0; group < in.layout->groups; ++group) {
      Weights<R> weights;
      find_weights<R>(in, group, scores, weights);
      const std::int64_t vectors = (in.layout->group_elements(group) + 15) / 16;
      const std::int64_t stride = vectors * kLineBytes;
      std::int64_t first = 0;
      for (; first + V <= vectors; first += V) {
        add_group<R, V>(in, group, stride, first, tokens, shares, weights);
      }
      for (; first < vectors; ++first) {
        add_group<R, 1>(in, group, stride, first, tokens, shares, weights);
      }
    }
  }
};

}  // namespace

void add_quantized_page(const Lanes& in, std::int64_t lanes) {
  if (in.layout->dtype == Dtype::kQ8) add_lanes<QuantizedPage<Dtype::kQ8>>(in, lanes);
  if (in.layout->dtype == Dtype::kQ4) add_lanes<QuantizedPage<Dtype::kQ4>>(in, lanes);
}

[[STRATA_LANES]] float quantize_query(Dtype pages, const bf16* query, std::int64_t groups,
                                      std::uint32_t* words, std::int32_t* sums) {
  __m512 largest = _mm512_setzero_ps();
  __m512 nothing = _mm512_setzero_ps();  // unless one is not finite
  for (std::int64_t i = 0; i < groups * kGroupNumel; i += 16) {
    const __m512 elements = sixteen_floats(query + i);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(elements));
    nothing = _mm512_fmadd_ps(elements, _mm512_setzero_ps(), nothing);
  }
  const float highest = pages == Dtype::kQ8 ? kHighest : kHighestByte;
  const float most = _mm512_reduce_max_ps(largest);
  const __m512 steps = _mm512_set1_ps(steps_per_unit(highest, most));
  for (std::int64_t group = 0; group < groups; ++group, words += kGroupWords) {
    __m512i numbers[kVectors];
    __m512i sum = _mm512_setzero_si512();
    for (int v = 0; v < kVectors; ++v) {
      const __m512 elements = sixteen_floats(query + group * kGroupNumel + 16 * v);
      numbers[v] = _mm512_cvtps_epi32(_mm512_mul_ps(elements, steps));
      sum = _mm512_add_epi32(sum, numbers[v]);
    }
    sums[group] = _mm512_reduce_add_epi32(sum);
    if (pages == Dtype::kQ8) {
      const TwoBytes bytes = two_bytes(numbers);
      _mm512_storeu_si512(words, bytes.upper);
      _mm512_storeu_si512(words + kGroupWords / 2, bytes.lower);
    } else {
      _mm512_storeu_si512(words, signed_bytes(numbers));
    }
  }
  return most / highest + _mm512_reduce_add_ps(nothing);
}

}  // namespace strata::cpu::over_pages
