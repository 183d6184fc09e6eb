#include "optimizer/adamw.h"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

#include "core/error.h"
#include "optimizer/split.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

struct Coefficients {
  float gradient_scale;
  float keep;  ///< of the weight, after decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float inverse_root_correction2;
  float epsilon;
  float step_size;
};

template <typename Gradient>
[[gnu::always_inline]] inline void advance_block(std::int64_t numel, std::uint16_t* __restrict hi,
                                                 std::int16_t* __restrict lo, float* __restrict m,
                                                 float* __restrict v,
                                                 const Gradient* __restrict gradient,
                                                 const Coefficients& c) {
  for (std::int64_t i = 0; i < numel; ++i) {
    const float g = static_cast<float>(gradient[i]) * c.gradient_scale;
    const float mean = m[i] + c.one_minus_beta1 * (g - m[i]);
    const float square = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(square) * c.inverse_root_correction2 + c.epsilon;
    const float weight = join(hi[i], lo[i]) * c.keep - c.step_size * mean / denominator;
    const SplitFloat halves = split(weight);
    hi[i] = halves.hi;
    lo[i] = halves.lo;
    m[i] = mean;
    v[i] = square;
  }
}

/// Asks for the cache lines of `numel` elements that will be changed (or, if const, read).
template <typename Element>
[[gnu::always_inline]] inline void prefetch(Element* elements, std::int64_t numel) {
  constexpr auto kPerLine = static_cast<std::int64_t>(64 / sizeof(Element));
  for (std::int64_t i = 0; i < numel; i += kPerLine) {
    __builtin_prefetch(elements + i, std::is_const_v<Element> ? 0 : 1);
  }
}

/// Block by block, the next one on its way from memory while one is computed: five streams and a
/// slow division leave the processor too little room to look that far ahead by itself. Blocks of
/// 128 and two blocks ahead are slower.
template <typename Gradient>
[[gnu::always_inline]] inline void advance(std::int64_t numel, std::uint16_t* __restrict hi,
                                           std::int16_t* __restrict lo, float* __restrict m,
                                           float* __restrict v, const Gradient* __restrict gradient,
                                           const Coefficients& c) {
  constexpr std::int64_t kBlock = 64;
  std::int64_t i = 0;
  for (; i + kBlock <= numel; i += kBlock) {
    const std::int64_t next = i + kBlock;
    if (next + kBlock <= numel) {
      prefetch(m + next, kBlock);
      prefetch(v + next, kBlock);
      prefetch(hi + next, kBlock);
      prefetch(lo + next, kBlock);
      prefetch(gradient + next, kBlock);
    }
    advance_block(kBlock, hi + i, lo + i, m + i, v + i, gradient + i, c);
  }
  advance_block(numel - i, hi + i, lo + i, m + i, v + i, gradient + i, c);
}

STRATA_MULTIVERSION
void advance_fp32(std::int64_t numel, std::uint16_t* __restrict hi, std::int16_t* __restrict lo,
                  float* __restrict m, float* __restrict v, const float* __restrict gradient,
                  const Coefficients c) {
  advance(numel, hi, lo, m, v, gradient, c);
}

STRATA_MULTIVERSION
void advance_bf16(std::int64_t numel, std::uint16_t* __restrict hi, std::int16_t* __restrict lo,
                  float* __restrict m, float* __restrict v, const bf16* __restrict gradient,
                  const Coefficients c) {
  advance(numel, hi, lo, m, v, gradient, c);
}

class AdamW final : public UpdateRule {
 public:
  explicit AdamW(const AdamWOptions& options) : options_(options) {}

  void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
              const UpdateStep& step, int threads) const override {
    check_update(chunk, segments, step, threads, state_sections());
    const Coefficients plain = coefficients(step, false);
    const Coefficients decayed = coefficients(step, true);
    visit_compute_dtype(chunk.gradient_dtype, [&](auto element) {
      const auto* gradient = static_cast<const decltype(element)*>(chunk.gradient);
      for_each_run(chunk.numel, segments, threads,
                   [&](std::int64_t begin, std::int64_t end, bool decay) {
                     run(end - begin, chunk.hi + begin, chunk.lo + begin, chunk.m + begin,
                         chunk.v + begin, gradient + begin, decay ? decayed : plain);
                   });
    });
  }

  StateSections state_sections() const noexcept override { return {.m = true, .v = true}; }

 private:
  static void run(std::int64_t numel, std::uint16_t* hi, std::int16_t* lo, float* m, float* v,
                  const float* gradient, const Coefficients& c) {
    advance_fp32(numel, hi, lo, m, v, gradient, c);
  }
  static void run(std::int64_t numel, std::uint16_t* hi, std::int16_t* lo, float* m, float* v,
                  const bf16* gradient, const Coefficients& c) {
    advance_bf16(numel, hi, lo, m, v, gradient, c);
  }

  Coefficients coefficients(const UpdateStep& step, bool decay) const {
    const double t = static_cast<double>(step.step);
    const double rate = step.learning_rate;
    const double correction1 = 1.0 - std::pow(options_.beta1, t);
    const double correction2 = 1.0 - std::pow(options_.beta2, t);
    return {
        .gradient_scale = step.gradient_scale,
        .keep = decay ? static_cast<float>(1.0 - rate * options_.weight_decay) : 1.0f,
        .one_minus_beta1 = static_cast<float>(1.0 - options_.beta1),
        .beta2 = static_cast<float>(options_.beta2),
        .one_minus_beta2 = static_cast<float>(1.0 - options_.beta2),
        .inverse_root_correction2 = static_cast<float>(1.0 / std::sqrt(correction2)),
        .epsilon = static_cast<float>(options_.epsilon),
        .step_size = static_cast<float>(rate / correction1),
    };
  }

  AdamWOptions options_;
};

void check_beta(const char* name, double beta) {
  if (!(beta >= 0.0 && beta < 1.0)) {
    throw UsageError(fmt::format("adamw: {} is {}; choose it from [0, 1)", name, beta));
  }
}

void check_not_negative(const char* name, double value) {
  if (!(value >= 0.0 && std::isfinite(value))) {
    throw UsageError(
        fmt::format("adamw: {} is {}; choose a finite value of 0 or more", name, value));
  }
}

}  // namespace

std::unique_ptr<UpdateRule> make_adamw(const AdamWOptions& options) {
  check_beta("beta1", options.beta1);
  check_beta("beta2", options.beta2);
  check_not_negative("epsilon", options.epsilon);
  check_not_negative("weight_decay", options.weight_decay);
  return std::make_unique<AdamW>(options);
}

}  // namespace strata
