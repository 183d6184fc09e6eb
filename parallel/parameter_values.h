#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "core/model/parameter.h"

namespace strata {

/// Gives elements [begin, begin + values.size()) of a parameter, row-major. Called from one thread.
using ParameterSource =
    std::function<void(Parameter parameter, std::int64_t begin, std::span<float> values)>;

/// Takes elements [begin, begin + values.size()) of a parameter, row-major: of each parameter from
/// the first to the last.
using ParameterSink =
    std::function<void(Parameter parameter, std::int64_t begin, std::span<const float> values)>;

/// Where all elements of a parameter lie one after the other, row-major, little-endian; of quantised
/// ones, the groups.
struct StoredParameter {
  std::string path;          ///< of the file
  std::uint64_t offset = 0;  ///< bytes from its start
  Dtype dtype = Dtype::kBf16;
};

/// Finds a parameter in a file; none where it lies otherwise there (transposed, say).
using ParameterLocator = std::function<std::optional<StoredParameter>(Parameter parameter)>;

/// Fresh values: Initializer of each parameter, the same for any number of ranks.
ParameterSource random_parameters(std::uint64_t seed);

}  // namespace strata
