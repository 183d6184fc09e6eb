#include "optimizer/lion.h"

#include "optimizer/split.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

struct Coefficients {
  float gradient_scale;
  float keep;  ///< of the weight, after decay
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float learning_rate;
};

/// The sections of one run.
template <typename Gradient>
struct Run {
  std::int64_t numel;
  std::uint16_t* hi;
  std::int16_t* lo;
  float* m;
  const Gradient* gradient;
};

template <typename Gradient>
[[gnu::always_inline]] inline void advance(const Run<Gradient>& run, const Coefficients c) {
  const std::int64_t numel = run.numel;
  std::uint16_t* __restrict hi = run.hi;
  std::int16_t* __restrict lo = run.lo;
  float* __restrict m = run.m;
  const Gradient* __restrict gradient = run.gradient;
  for (std::int64_t i = 0; i < numel; ++i) {
    const float g = static_cast<float>(gradient[i]) * c.gradient_scale;
    const float direction = c.beta1 * m[i] + c.one_minus_beta1 * g;
    const float up = direction > 0.0f ? c.learning_rate : 0.0f;
    const float down = direction < 0.0f ? c.learning_rate : 0.0f;
    const SplitFloat halves = split(join(hi[i], lo[i]) * c.keep - (up - down));
    hi[i] = halves.hi;
    lo[i] = halves.lo;
    m[i] = c.beta2 * m[i] + c.one_minus_beta2 * g;
  }
}

STRATA_MULTIVERSION
void advance_fp32(const Run<float>& run, const Coefficients& c) { advance(run, c); }

STRATA_MULTIVERSION
void advance_bf16(const Run<bf16>& run, const Coefficients& c) { advance(run, c); }

STRATA_MULTIVERSION
void advance_fp16(const Run<f16>& run, const Coefficients& c) { advance(run, c); }

class Lion final : public UpdateRule {
 public:
  explicit Lion(const LionOptions& options) : options_(options) {}

  void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
              const UpdateStep& step, int threads) const override {
    check_update(chunk, segments, step, threads, state_sections());
    const Coefficients plain = coefficients(step, false);
    const Coefficients decayed = coefficients(step, true);
    visit_compute_dtype(chunk.gradient_dtype, [&](auto element) {
      const auto* gradient = static_cast<const decltype(element)*>(chunk.gradient);
      for_each_run(chunk.numel, segments, threads,
                   [&](std::int64_t begin, std::int64_t end, bool decay) {
                     advance_any({end - begin, chunk.hi + begin, chunk.lo + begin, chunk.m + begin,
                                  gradient + begin},
                                 decay ? decayed : plain);
                   });
    });
  }

  StateSections state_sections() const noexcept override { return {.m = true, .v = false}; }

 private:
  static void advance_any(const Run<float>& run, const Coefficients& c) { advance_fp32(run, c); }
  static void advance_any(const Run<bf16>& run, const Coefficients& c) { advance_bf16(run, c); }
  static void advance_any(const Run<f16>& run, const Coefficients& c) { advance_fp16(run, c); }

  Coefficients coefficients(const UpdateStep& step, bool decay) const {
    const double rate = step.learning_rate;
    return {
        .gradient_scale = step.gradient_scale,
        .keep = decay ? static_cast<float>(1.0 - rate * options_.weight_decay) : 1.0f,
        .beta1 = static_cast<float>(options_.beta1),
        .one_minus_beta1 = static_cast<float>(1.0 - options_.beta1),
        .beta2 = static_cast<float>(options_.beta2),
        .one_minus_beta2 = static_cast<float>(1.0 - options_.beta2),
        .learning_rate = step.learning_rate,
    };
  }

  LionOptions options_;
};

}  // namespace

std::unique_ptr<UpdateRule> make_lion(const LionOptions& options) {
  check_beta("lion", "beta1", options.beta1);
  check_beta("lion", "beta2", options.beta2);
  check_not_negative("lion", "weight_decay", options.weight_decay);
  return std::make_unique<Lion>(options);
}

}  // namespace strata
