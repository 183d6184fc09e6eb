#include "optimizer/sgd.h"

#include "optimizer/split.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

struct Coefficients {
  float gradient_scale;
  float weight_decay;
  float momentum;
  float learning_rate;
};

enum class Momentum { kNone, kFirst, kLater };

/// The sections of one run. `m` is null without momentum.
template <typename Gradient>
struct Run {
  std::int64_t numel;
  std::uint16_t* hi;
  std::int16_t* lo;
  float* m;
  const Gradient* gradient;
};

template <Momentum kMomentum, typename Gradient>
[[gnu::always_inline]] inline void advance(const Run<Gradient>& run, const Coefficients c) {
  const std::int64_t numel = run.numel;
  std::uint16_t* __restrict hi = run.hi;
  std::int16_t* __restrict lo = run.lo;
  float* __restrict m = run.m;
  const Gradient* __restrict gradient = run.gradient;
  for (std::int64_t i = 0; i < numel; ++i) {
    const float weight = join(hi[i], lo[i]);
    float direction = static_cast<float>(gradient[i]) * c.gradient_scale + c.weight_decay * weight;
    if constexpr (kMomentum == Momentum::kLater) direction = c.momentum * m[i] + direction;
    if constexpr (kMomentum != Momentum::kNone) m[i] = direction;
    const SplitFloat halves = split(weight - c.learning_rate * direction);
    hi[i] = halves.hi;
    lo[i] = halves.lo;
  }
}

template <typename Gradient>
[[gnu::always_inline]] inline void advance(const Run<Gradient>& run, const Coefficients c,
                                           Momentum momentum) {
  switch (momentum) {
    case Momentum::kNone:
      return advance<Momentum::kNone>(run, c);
    case Momentum::kFirst:
      return advance<Momentum::kFirst>(run, c);
    case Momentum::kLater:
      return advance<Momentum::kLater>(run, c);
  }
}

STRATA_MULTIVERSION
void advance_fp32(const Run<float>& run, const Coefficients& c, Momentum momentum) {
  advance(run, c, momentum);
}

STRATA_MULTIVERSION
void advance_bf16(const Run<bf16>& run, const Coefficients& c, Momentum momentum) {
  advance(run, c, momentum);
}

STRATA_MULTIVERSION
void advance_fp16(const Run<f16>& run, const Coefficients& c, Momentum momentum) {
  advance(run, c, momentum);
}

class Sgd final : public UpdateRule {
 public:
  explicit Sgd(const SgdOptions& options) : options_(options) {}

  void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
              const UpdateStep& step, int threads) const override {
    check_update(chunk, segments, step, threads, state_sections());
    const Coefficients plain = coefficients(step, false);
    const Coefficients decayed = coefficients(step, true);
    const Momentum momentum = !state_sections().m ? Momentum::kNone
                              : step.step == 1    ? Momentum::kFirst
                                                  : Momentum::kLater;
    visit_compute_dtype(chunk.gradient_dtype, [&](auto element) {
      const auto* gradient = static_cast<const decltype(element)*>(chunk.gradient);
      for_each_run(
          chunk.numel, segments, threads, [&](std::int64_t begin, std::int64_t end, bool decay) {
            float* m = momentum == Momentum::kNone ? nullptr : chunk.m + begin;
            advance_any({end - begin, chunk.hi + begin, chunk.lo + begin, m, gradient + begin},
                        decay ? decayed : plain, momentum);
          });
    });
  }

  StateSections state_sections() const noexcept override {
    return {.m = options_.momentum != 0.0, .v = false};
  }

 private:
  static void advance_any(const Run<float>& run, const Coefficients& c, Momentum momentum) {
    advance_fp32(run, c, momentum);
  }
  static void advance_any(const Run<bf16>& run, const Coefficients& c, Momentum momentum) {
    advance_bf16(run, c, momentum);
  }
  static void advance_any(const Run<f16>& run, const Coefficients& c, Momentum momentum) {
    advance_fp16(run, c, momentum);
  }

  Coefficients coefficients(const UpdateStep& step, bool decay) const {
    return {
        .gradient_scale = step.gradient_scale,
        .weight_decay = decay ? static_cast<float>(options_.weight_decay) : 0.0f,
        .momentum = static_cast<float>(options_.momentum),
        .learning_rate = step.learning_rate,
    };
  }

  SgdOptions options_;
};

}  // namespace

std::unique_ptr<UpdateRule> make_sgd(const SgdOptions& options) {
  check_not_negative("sgd", "momentum", options.momentum);
  check_not_negative("sgd", "weight_decay", options.weight_decay);
  return std::make_unique<Sgd>(options);
}

}  // namespace strata
