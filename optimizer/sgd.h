#pragma once

#include <memory>

#include "optimizer/update_rule.h"

namespace strata {

struct SgdOptions {
  double momentum = 0.0;
  double weight_decay = 0.0;  ///< on segments with `decay`
};

/// Stochastic gradient descent as torch.optim.SGD without dampening and Nesterov. Weight decay is
/// an L2 term of the gradient, not decoupled as in AdamW. With g = gradient_scale * gradient, w the
/// fp32 master:
///
///     g += weight_decay * w
///     m  = g at step 1 (what m held is not read), momentum * m + g after it
///     w -= learning_rate * m
///
/// in fp32, products not fused into sums. Never uses v (it may be null), and m only with momentum.
/// @throws UsageError if an option is out of range
std::unique_ptr<UpdateRule> make_sgd(const SgdOptions& options);

}  // namespace strata
