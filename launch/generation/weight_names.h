#pragma once

#include <string>

#include "core/dtype.h"

namespace strata {

/// What users call weights that are kept quantised.
struct WeightName {
  const char* name;
  Dtype dtype;
};
inline constexpr WeightName kQuantizedWeights[] = {{"int8", Dtype::kQ8}, {"int4", Dtype::kQ4}};

/// int8, int4, or as dtypes are called.
inline std::string weight_name(Dtype weights) {
  for (const WeightName& named : kQuantizedWeights) {
    if (named.dtype == weights) return named.name;
  }
  return std::string(name(weights));
}

}  // namespace strata
