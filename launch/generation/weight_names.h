#pragma once

#include "core/dtype.h"

namespace strata {

/// What users call weights that are kept quantised.
struct WeightName {
  const char* name;
  Dtype dtype;
};
inline constexpr WeightName kQuantizedWeights[] = {{"int8", Dtype::kQ8}, {"int4", Dtype::kQ4}};

}  // namespace strata
