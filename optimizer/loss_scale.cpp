#include "optimizer/loss_scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::int64_t kMostPower = 100;  // times a loss it is still a float

const LossScaleOptions& checked(const LossScaleOptions& options) {
  const auto check = [](bool good, const char* option, auto value, const char* remedy) {
    if (!good) throw UsageError(fmt::format("{}: {} {}", option, value, remedy));
  };
  check(options.loss_scale >= 0 && std::isfinite(options.loss_scale), "--loss_scale",
        options.loss_scale, "is no scale; use a positive number, or 0 for a dynamic one");
  check(options.initial_scale_power >= 0 && options.initial_scale_power <= kMostPower,
        "--initial_scale_power", options.initial_scale_power, "is not a power from 0 to 100");
  check(options.window >= 1, "--loss_scale_window", options.window,
        "is no number of steps; use 1 or more");
  check(options.hysteresis >= 1, "--hysteresis", options.hysteresis,
        "is no number of overflows; use 1 or more");
  const double initial = std::ldexp(1.0, static_cast<int>(options.initial_scale_power));
  check(options.min_loss_scale > 0 && options.min_loss_scale <= initial, "--min_loss_scale",
        options.min_loss_scale, "is not above 0 and up to the initial scale; use 1");
  return options;
}

double first_scale(const LossScaleOptions& options) {
  if (options.loss_scale > 0) return options.loss_scale;
  return std::ldexp(1.0, static_cast<int>(options.initial_scale_power));
}

}  // namespace

LossScaler::LossScaler(const LossScaleOptions& options)
    : options_(checked(options)),
      scale_(first_scale(options)),
      overflows_left_(options.hysteresis) {}

void LossScaler::finish_step(bool overflowed) {
  if (options_.loss_scale > 0) return;
  if (overflowed) {
    clean_steps_ = 0;
    return reduce();
  }
  if (options_.consecutive_hysteresis) overflows_left_ = options_.hysteresis;
  if (clean_steps_ > 0 && clean_steps_ % options_.window == 0) {
    overflows_left_ = options_.hysteresis;
    scale_ *= 2;
  }
  ++clean_steps_;
}

void LossScaler::reduce() {
  if (overflows_left_ > 1) {
    --overflows_left_;
    return;
  }
  if (scale_ == options_.min_loss_scale) {
    throw Error(
        fmt::format("gradients overflow fp16 with the smallest loss scale, {}; lower the learning "
                    "rate, or compute in bf16",
                    scale_));
  }
  scale_ = std::max(scale_ / 2, options_.min_loss_scale);
}

}  // namespace strata
