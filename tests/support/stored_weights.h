#pragma once

#include <vector>

#include "core/group_quantization.h"
#include "tests/support/ops_case.h"

namespace strata::test {

/// Normally distributed weights [n, k] of any dtype in memory of exactly their size, and the values
/// that they have there.
struct StoredWeights {
  StoredWeights(Dtype weights, std::int64_t n, std::int64_t k) : dtype(weights), shape({n, k}) {
    const Doubles numbers = normal_values(n * k, 5);
    if (is_quantized(dtype)) {
      stored.resize(storage_bytes(dtype, n * k));
      std::vector<float> floats(numbers.begin(), numbers.end());
      quantize(floats, dtype, stored.data());
      dequantize(stored.data(), dtype, floats);
      values.assign(floats.begin(), floats.end());
    } else {
      GuardedTensor tensor(dtype, shape, numbers);
      const auto* data = static_cast<const std::byte*>(tensor.view().data());
      stored.assign(data, data + tensor.view().bytes());
      values = tensor.values();
    }
  }
  ConstTensorView view() const { return {stored.data(), dtype, shape}; }

  Dtype dtype;
  Shape shape;
  std::vector<std::byte> stored;
  Doubles values;
};

}  // namespace strata::test
