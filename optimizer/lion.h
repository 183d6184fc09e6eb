#pragma once

#include <memory>

#include "optimizer/update_rule.h"

namespace strata {

struct LionOptions {
  double beta1 = 0.9;  ///< of the momentum in the direction of a step
  double beta2 = 0.99;
  double weight_decay = 0.0;  ///< on segments with `decay`
};

/// Lion (Chen et al., arXiv 2302.06675, Algorithm 2): steps of one size in the direction of a sign.
/// With g = gradient_scale * gradient, w the fp32 master:
///
///     c  = beta1 * m + (1 - beta1) * g
///     w -= learning_rate * (sign(c) + weight_decay * w)        sign(0) = 0
///     m  = beta2 * m + (1 - beta2) * g
///
/// in fp32, products not fused into sums. Uses m; v may be null.
/// @throws UsageError if an option is out of range
std::unique_ptr<UpdateRule> make_lion(const LionOptions& options);

}  // namespace strata
