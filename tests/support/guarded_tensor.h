#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace strata::test {

/// A tensor between two zones of sentinels, on request one element off its alignment. Starts as
/// NaNs, so that an element an operation forgets is noticed. Owns its memory.
class GuardedTensor {
 public:
  GuardedTensor(Dtype dtype, Shape shape, bool shifted = false)
      : dtype_(dtype),
        shape_(shape),
        begin_(kGuard + (shifted ? size_bytes(dtype) : 0)),
        memory_(begin_ + TensorView(nullptr, dtype, shape).bytes() + kGuard, kSentinel) {
    std::memset(memory_.data() + begin_, 0xff, view().bytes());
  }
  GuardedTensor(Dtype dtype, Shape shape, std::span<const double> values, bool shifted = false)
      : GuardedTensor(dtype, shape, shifted) {
    set(values);
  }

  Dtype dtype() const { return dtype_; }
  TensorView view() { return {memory_.data() + begin_, dtype_, shape_}; }

  /// Rounds the values to the dtype.
  void set(std::span<const double> values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::byte* at = memory_.data() + begin_ + i * size_bytes(dtype_);
      if (dtype_ == Dtype::kF32) put(at, static_cast<float>(values[i]));
      if (dtype_ == Dtype::kBf16) put(at, bf16(static_cast<float>(values[i])));
      if (dtype_ == Dtype::kF16) put(at, f16(static_cast<float>(values[i])));
      if (dtype_ == Dtype::kI32) put(at, static_cast<std::int32_t>(values[i]));
    }
  }
  /// What the tensor holds, exactly.
  std::vector<double> values() const {
    std::vector<double> result(static_cast<std::size_t>(shape_.numel()));
    for (std::size_t i = 0; i < result.size(); ++i) {
      const std::byte* at = memory_.data() + begin_ + i * size_bytes(dtype_);
      if (dtype_ == Dtype::kF32) result[i] = static_cast<double>(get<float>(at));
      if (dtype_ == Dtype::kBf16)
        result[i] = static_cast<double>(static_cast<float>(get<bf16>(at)));
      if (dtype_ == Dtype::kF16) result[i] = static_cast<double>(static_cast<float>(get<f16>(at)));
      if (dtype_ == Dtype::kI32) result[i] = static_cast<double>(get<std::int32_t>(at));
    }
    return result;
  }
  /// Whether nobody wrote outside the tensor.
  bool intact() const {
    const std::size_t end = memory_.size() - kGuard;
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      if ((i < begin_ || i >= end) && memory_[i] != kSentinel) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::byte kSentinel{0xa5};

  template <typename T>
  static void put(std::byte* at, T value) {
    std::memcpy(at, &value, sizeof(value));
  }
  template <typename T>
  static T get(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }

  Dtype dtype_;
  Shape shape_;
  std::size_t begin_;
  std::vector<std::byte> memory_;
};

/// Normally distributed numbers, the same for the same seed.
inline std::vector<double> normal_values(std::int64_t count, unsigned seed,
                                         double deviation = 1.0) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> distribution(0.0, deviation);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = distribution(engine);
  return values;
}

}  // namespace strata::test
