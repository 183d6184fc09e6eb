#pragma once

#include "parallel/parameter_values.h"
#include "parallel/weight_storage.h"

namespace strata {

/// The values that `source` gives, as they are once `storage` has kept them quantised: what a model
/// loses by it, in any precision of products.
/// @throws what `source` throws; FormatError naming the parameter when a value is not finite
ParameterSource quantized_values(ParameterSource source, const WeightStorage& storage);

}  // namespace strata
