#pragma once

#include <memory>

#include "optimizer/update_rule.h"

namespace strata {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  ///< on segments with `decay`
};

/// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in the order of
/// torch.optim.AdamW. With g = gradient_scale * gradient, t = step, w the fp32 master:
///
///     w -= learning_rate * weight_decay * w
///     m += (1 - beta1) * (g - m)
///     v  = beta2 * v + (1 - beta2) * g * g
///     w -= learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
///
/// in fp32, coefficients computed in double and rounded once. Products are not fused into sums, so
/// the bits do not depend on the processor. Uses m and v.
/// @throws UsageError if an option is out of range
std::unique_ptr<UpdateRule> make_adamw(const AdamWOptions& options);

/// Adam whose weight decay is an L2 term of the gradient, as torch.optim.Adam: the same with
/// g += weight_decay * w first, and without decay of w itself.
/// @throws UsageError if an option is out of range
std::unique_ptr<UpdateRule> make_adam(const AdamWOptions& options);

}  // namespace strata
