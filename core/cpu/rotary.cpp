#include <cmath>
#include <vector>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

/// Turns the pairs (x_i, x_{i + half}) of one head by the angles with these cosines and sines.
template <typename T>
STRATA_MULTIVERSION void turn_head(T* __restrict x, const float* __restrict cosine,
                                   const float* __restrict sine, std::int64_t half) {
  T* __restrict upper = x + half;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = load(x[i]);
    const float b = load(upper[i]);
    store(x[i], a * cosine[i] - b * sine[i]);
    store(upper[i], b * cosine[i] + a * sine[i]);
  }
}

}  // namespace

void CpuOps::rotary(TensorView x, std::int64_t head_size, ConstTensorView positions,
                    ConstTensorView inverse_frequency, float magnitude, bool inverse,
                    Stream& stream) {
  expect_compute("rotary", "x", x);
  const Rows size = rows_of("rotary", x);
  expects(head_size > 0 && head_size % 2 == 0 && size.features % head_size == 0,
          "rotary: the head size must be even and divide the features of x");
  expect_tensor("rotary", "positions", positions, Dtype::kI32, {size.rows});
  expect_tensor("rotary", "inverse_frequency", inverse_frequency, Dtype::kF32, {head_size / 2});
  submit(stream, threads_, [=] {
    const std::int64_t half = head_size / 2;
    const float* frequency = inverse_frequency.as<float>();
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        std::vector<float> turn(static_cast<std::size_t>(head_size));
        float* cosine = turn.data();
        float* sine = cosine + half;
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const auto position = static_cast<float>(positions.as<std::int32_t>()[t]);
          for (std::int64_t i = 0; i < half; ++i) {
            const float angle = position * frequency[i];
            cosine[i] = round_to<T>(std::cos(angle) * magnitude);
            sine[i] = round_to<T>((inverse ? -std::sin(angle) : std::sin(angle)) * magnitude);
          }
          T* row = x.as<T>() + t * size.features;
          for (std::int64_t h = 0; h < size.features; h += head_size) {
            turn_head(row + h, cosine, sine, half);
          }
        }
      });
    });
  });
}

}  // namespace strata::cpu
