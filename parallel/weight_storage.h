#pragma once

#include "core/model/parameter.h"

namespace strata {

/// What the frozen parameters of a model are kept as.
struct WeightStorage {
  Dtype compute = Dtype::kBf16;  ///< of products
  Dtype weights = Dtype::kBf16;  ///< compute, kQ8 or kQ4

  /// Matrices are quantised whose rows are whole groups; tables, which are looked up and give
  /// logits, have 8 bits in any case.
  Dtype of(const ParameterSpec& parameter) const {
    const bool groups = parameter.shape.rank() == 2 && parameter.shape[1] % kGroupNumel == 0;
    if (!is_quantized(weights) || !groups) return compute;
    return parameter.row_tiled ? Dtype::kQ8 : weights;
  }
};

}  // namespace strata
