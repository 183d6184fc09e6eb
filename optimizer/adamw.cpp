#include "optimizer/adamw.h"

#include <cmath>
#include <type_traits>

#include "optimizer/split.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

/// How weight decay acts: on the weight itself (AdamW), or as a term of the gradient (Adam).
enum class Decay { kDecoupled, kL2 };

struct Coefficients {
  float gradient_scale;
  float keep;  ///< of the weight, after decoupled decay
  float l2;    ///< of the weight, in the gradient
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float inverse_root_correction2;
  float epsilon;
  float step_size;
};

template <Decay kDecay, typename Gradient>
[[gnu::always_inline]] inline void advance_block(std::int64_t numel, std::uint16_t* __restrict hi,
                                                 std::int16_t* __restrict lo, float* __restrict m,
                                                 float* __restrict v,
                                                 const Gradient* __restrict gradient,
                                                 const Coefficients& c) {
  for (std::int64_t i = 0; i < numel; ++i) {
    const float before = join(hi[i], lo[i]);
    float g = static_cast<float>(gradient[i]) * c.gradient_scale;
    if constexpr (kDecay == Decay::kL2) g += c.l2 * before;
    const float mean = m[i] + c.one_minus_beta1 * (g - m[i]);
    const float square = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(square) * c.inverse_root_correction2 + c.epsilon;
    const float kept = kDecay == Decay::kDecoupled ? before * c.keep : before;
    const SplitFloat halves = split(kept - c.step_size * mean / denominator);
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
template <Decay kDecay, typename Gradient>
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
    advance_block<kDecay>(kBlock, hi + i, lo + i, m + i, v + i, gradient + i, c);
  }
  advance_block<kDecay>(numel - i, hi + i, lo + i, m + i, v + i, gradient + i, c);
}

STRATA_MULTIVERSION
void advance_fp32(std::int64_t numel, std::uint16_t* __restrict hi, std::int16_t* __restrict lo,
                  float* __restrict m, float* __restrict v, const float* __restrict gradient,
                  const Coefficients c, Decay decay) {
  if (decay == Decay::kL2) return advance<Decay::kL2>(numel, hi, lo, m, v, gradient, c);
  advance<Decay::kDecoupled>(numel, hi, lo, m, v, gradient, c);
}

STRATA_MULTIVERSION
void advance_bf16(std::int64_t numel, std::uint16_t* __restrict hi, std::int16_t* __restrict lo,
                  float* __restrict m, float* __restrict v, const bf16* __restrict gradient,
                  const Coefficients c, Decay decay) {
  if (decay == Decay::kL2) return advance<Decay::kL2>(numel, hi, lo, m, v, gradient, c);
  advance<Decay::kDecoupled>(numel, hi, lo, m, v, gradient, c);
}

STRATA_MULTIVERSION
void advance_fp16(std::int64_t numel, std::uint16_t* __restrict hi, std::int16_t* __restrict lo,
                  float* __restrict m, float* __restrict v, const f16* __restrict gradient,
                  const Coefficients c, Decay decay) {
  if (decay == Decay::kL2) return advance<Decay::kL2>(numel, hi, lo, m, v, gradient, c);
  advance<Decay::kDecoupled>(numel, hi, lo, m, v, gradient, c);
}

class Adam final : public UpdateRule {
 public:
  Adam(const AdamWOptions& options, Decay decay) : options_(options), decay_(decay) {}

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
                         chunk.v + begin, gradient + begin, decay ? decayed : plain, decay_);
                   });
    });
  }

  StateSections state_sections() const noexcept override { return {.m = true, .v = true}; }

 private:
  static void run(std::int64_t numel, std::uint16_t* hi, std::int16_t* lo, float* m, float* v,
                  const float* gradient, const Coefficients& c, Decay decay) {
    advance_fp32(numel, hi, lo, m, v, gradient, c, decay);
  }
  static void run(std::int64_t numel, std::uint16_t* hi, std::int16_t* lo, float* m, float* v,
                  const bf16* gradient, const Coefficients& c, Decay decay) {
    advance_bf16(numel, hi, lo, m, v, gradient, c, decay);
  }
  static void run(std::int64_t numel, std::uint16_t* hi, std::int16_t* lo, float* m, float* v,
                  const f16* gradient, const Coefficients& c, Decay decay) {
    advance_fp16(numel, hi, lo, m, v, gradient, c, decay);
  }

  Coefficients coefficients(const UpdateStep& step, bool decay) const {
    const double t = static_cast<double>(step.step);
    const double rate = step.learning_rate;
    const double correction1 = 1.0 - std::pow(options_.beta1, t);
    const double correction2 = 1.0 - std::pow(options_.beta2, t);
    const double decoupled = decay && decay_ == Decay::kDecoupled ? options_.weight_decay : 0.0;
    const double l2 = decay && decay_ == Decay::kL2 ? options_.weight_decay : 0.0;
    return {
        .gradient_scale = step.gradient_scale,
        .keep = static_cast<float>(1.0 - rate * decoupled),
        .l2 = static_cast<float>(l2),
        .one_minus_beta1 = static_cast<float>(1.0 - options_.beta1),
        .beta2 = static_cast<float>(options_.beta2),
        .one_minus_beta2 = static_cast<float>(1.0 - options_.beta2),
        .inverse_root_correction2 = static_cast<float>(1.0 / std::sqrt(correction2)),
        .epsilon = static_cast<float>(options_.epsilon),
        .step_size = static_cast<float>(rate / correction1),
    };
  }

  AdamWOptions options_;
  Decay decay_;
};

void check_options(const char* rule, const AdamWOptions& options) {
  check_beta(rule, "beta1", options.beta1);
  check_beta(rule, "beta2", options.beta2);
  check_not_negative(rule, "epsilon", options.epsilon);
  check_not_negative(rule, "weight_decay", options.weight_decay);
}

}  // namespace

std::unique_ptr<UpdateRule> make_adamw(const AdamWOptions& options) {
  check_options("adamw", options);
  return std::make_unique<Adam>(options, Decay::kDecoupled);
}

std::unique_ptr<UpdateRule> make_adam(const AdamWOptions& options) {
  check_options("adam", options);
  return std::make_unique<Adam>(options, Decay::kL2);
}

}  // namespace strata
