#include <immintrin.h>

#include <cstring>

#include "core/cpu/dequantize.h"

#define STRATA_AVX512_BF16 gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")

namespace strata::cpu {
namespace {

constexpr std::int64_t kToBytes = 2 * kGroupNumel;

[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512 scale_of(const std::byte* group) {
  std::uint16_t bits;
  std::memcpy(&bits, group, sizeof bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_set1_epi32(bits), 16));
}

[[STRATA_AVX512_BF16, gnu::always_inline]] inline __m512 sixteen_values(const std::byte* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

[[STRATA_AVX512_BF16]] void dequantize_q8(const std::byte* from, std::int64_t groups,
                                          std::byte* to) {
  for (; groups > 0; --groups, from += group_bytes(Dtype::kQ8), to += kToBytes) {
    const __m512 scale = scale_of(from);
    for (std::int64_t half = 0; half < 2; ++half) {
      const std::byte* values = from + 2 + 32 * half;
      const __m512 low = _mm512_mul_ps(scale, sixteen_values(values));
      const __m512 high = _mm512_mul_ps(scale, sixteen_values(values + 16));
      const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
      std::memcpy(to + 64 * half, &rounded, sizeof rounded);
    }
  }
}

/// The sixteen elements that a group can have are rounded once and looked up.
[[STRATA_AVX512_BF16]] void dequantize_q4(const std::byte* from, std::int64_t groups,
                                          std::byte* to) {
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i low_half = _mm512_set1_epi16(15);
  for (; groups > 0; --groups, from += group_bytes(Dtype::kQ4), to += kToBytes) {
    const auto zero_point = static_cast<float>(std::to_integer<int>(from[2]));
    const __m512 elements =
        _mm512_mul_ps(scale_of(from), _mm512_sub_ps(values, _mm512_set1_ps(zero_point)));
    const __m256bh rounded = _mm512_cvtneps_pbh(elements);
    __m256i sixteen;
    std::memcpy(&sixteen, &rounded, sizeof sixteen);
    const __m512i table = _mm512_castsi256_si512(sixteen);
    const __m512i pairs =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 3)));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_and_si512(pairs, low_half), table));
    _mm512_storeu_si512(to + 64, _mm512_permutexvar_epi16(_mm512_srli_epi16(pairs, 4), table));
  }
}

}  // namespace

void dequantize_to_bf16(const std::byte* from, Dtype dtype, std::int64_t groups, std::byte* to) {
  if (dtype == Dtype::kQ8) dequantize_q8(from, groups, to);
  if (dtype == Dtype::kQ4) dequantize_q4(from, groups, to);
}

}  // namespace strata::cpu
