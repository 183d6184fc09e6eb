#include "core/cpu/lanes_avx512.h"

namespace strata::cpu::over_pages {
namespace {

[[STRATA_LANES_INLINE]] inline __m512 multiply_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

/// Pages of bf16.
struct Bf16Page {
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void find_scores(const Lanes& in,
                                                         __m512 (&scores)[R][kVectors]) {
    for (auto& lane : scores) {
      for (__m512& vector : lane) vector = _mm512_setzero_ps();
    }
    const std::byte* bundle = in.head;
    const std::int64_t pairs = (in.layout->head_size + 1) / 2;
    for (std::int64_t pair = 0; pair < pairs; ++pair, bundle += 4 * kPageTokens) {
      __m512i keys[kVectors];
      for (int v = 0; v < kVectors; ++v) keys[v] = get(bundle + v * kLineBytes, in.ahead);
      for (int r = 0; r < R; ++r) {
        const __m512i query = all(in.queries[r * in.padded / 2 + pair]);
        for (int v = 0; v < kVectors; ++v) {
          scores[r][v] = multiply_pairs(scores[r][v], query, keys[v]);
        }
      }
    }
  }

  /// Probabilities of a page in pairs.
  template <int R>
  struct Weights {
    alignas(64) std::uint32_t of[R][kPageTokens / 2];
  };

  template <int R, int V>
  [[STRATA_LANES_INLINE]] static inline void add_pair(const std::byte* group, std::ptrdiff_t ahead,
                                                      __m512i mask, const Weights<R>& weights,
                                                      std::int64_t pair, __m512 (&sums)[R][V]) {
    const std::byte* bundle = group + pair * V * kLineBytes;
    __m512i values[V];
    for (int v = 0; v < V; ++v) {
      values[v] = _mm512_and_si512(get(bundle + v * kLineBytes, ahead), mask);
    }
    for (int r = 0; r < R; ++r) {
      const __m512i weight = all(weights.of[r][pair]);
      for (int v = 0; v < V; ++v) sums[r][v] = multiply_pairs(sums[r][v], weight, values[v]);
    }
  }
  template <int R, int V>
  [[STRATA_LANES]] static void add_group(const Lanes& in, std::int64_t group,
                                         const TokenRange& tokens, const Shares& shares,
                                         const Weights<R>& weights) {
    const std::byte* values = in.head + in.layout->values_of(group);
    __m512 sums[R][V];
    for (auto& lane : sums) {
      for (__m512& vector : lane) vector = _mm512_setzero_ps();
    }
    // The other half of a pair that is not seen whole may be no number.
    std::int64_t pair = tokens.begin / 2;
    const __m512i low = all(0x0000ffffu), high = all(0xffff0000u), whole = all(0xffffffffu);
    if (tokens.begin % 2 == 1) add_pair<R, V>(values, in.ahead, high, weights, pair++, sums);
    for (; pair < tokens.end / 2; ++pair) {
      add_pair<R, V>(values, in.ahead, whole, weights, pair, sums);
    }
    if (tokens.end % 2 == 1) add_pair<R, V>(values, in.ahead, low, weights, pair, sums);
    for (int r = 0; r < R; ++r) {
      float* to = in.outputs + r * in.padded + group * kGroupNumel;
      const __m512 before = of_lane(shares.before, r), page = of_lane(shares.page, r);
      for (int v = 0; v < V; ++v) {
        const __m512 output = _mm512_mul_ps(_mm512_loadu_ps(to + 16 * v), before);
        _mm512_storeu_ps(to + 16 * v, _mm512_fmadd_ps(sums[r][v], page, output));
      }
    }
  }
  template <int R>
  [[STRATA_LANES_INLINE]] static inline void add_values(const Lanes& in, const TokenRange& tokens,
                                                        const Shares& shares,
                                                        const __m512 (&scores)[R][kVectors]) {
    Weights<R> weights;
    for (int r = 0; r < R; ++r) {
      for (int half = 0; half < 2; ++half) {
        const __m512bh pairs = _mm512_cvtne2ps_pbh(scores[r][2 * half + 1], scores[r][2 * half]);
        std::memcpy(weights.of[r] + 16 * half, &pairs, sizeof pairs);
      }
    }
    for (std::int64_t group = 0; group < in.layout->groups; ++group) {
      const std::int64_t vectors = (in.layout->group_elements(group) + 15) / 16;
      if (vectors == 1) add_group<R, 1>(in, group, tokens, shares, weights);
      if (vectors == 2) add_group<R, 2>(in, group, tokens, shares, weights);
      if (vectors == 3) add_group<R, 3>(in, group, tokens, shares, weights);
      if (vectors == 4) add_group<R, 4>(in, group, tokens, shares, weights);
    }
  }
};

}  // namespace

void add_bf16_page(const Lanes& in, std::int64_t lanes) { add_lanes<Bf16Page>(in, lanes); }

[[STRATA_LANES]] void store_scaled(const float* from, float factor, bf16* to) {
  const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(from), _mm512_set1_ps(factor));
  const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(from + 16), _mm512_set1_ps(factor));
  const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
  std::memcpy(static_cast<void*>(to), &rounded, sizeof rounded);
}

}  // namespace strata::cpu::over_pages
