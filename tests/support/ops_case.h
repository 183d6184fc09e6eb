#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>

#include "core/device.h"
#include "core/ops.h"
#include "tests/support/guarded_tensor.h"
#include "tests/support/reference_ops.h"

namespace strata::test {

constexpr double kFloatUnit = 0x1p-24;  ///< largest relative error of rounding to fp32

/// Largest relative error of rounding to `dtype`.
constexpr double unit(Dtype dtype) {
  return dtype == Dtype::kBf16 ? 0x1p-8 : dtype == Dtype::kF16 ? 0x1p-11 : kFloatUnit;
}
/// Largest error of rounding a number too small for that.
constexpr double least(Dtype dtype) { return dtype == Dtype::kF16 ? 0x1p-25 : 1e-37; }

/// A fixture that runs operations of the CPU backend on one dtype, with tensors aligned or not.
struct OpsCase {
  Dtype dtype;
  bool shifted;
};

class OpsContract : public testing::TestWithParam<OpsCase> {
 protected:
  Dtype dtype() const { return GetParam().dtype; }
  Ops& ops() { return device_->ops(); }
  Stream& stream() { return *stream_; }

  /// A tensor of the dtype under test.
  GuardedTensor tensor(Shape shape, std::span<const double> values) const {
    return {dtype(), shape, values, GetParam().shifted};
  }
  GuardedTensor tensor(Shape shape) const { return {dtype(), shape, GetParam().shifted}; }
  GuardedTensor fp32(Shape shape, std::span<const double> values) const {
    return {Dtype::kF32, shape, values, GetParam().shifted};
  }
  GuardedTensor fp32(Shape shape) const { return {Dtype::kF32, shape, GetParam().shifted}; }
  GuardedTensor integers(std::span<const std::int32_t> values) const {
    GuardedTensor result(Dtype::kI32, {static_cast<std::int64_t>(values.size())},
                         GetParam().shifted);
    result.set(Doubles(values.begin(), values.end()));
    return result;
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

inline auto all_ops_cases() {
  return testing::Values(OpsCase{Dtype::kF32, false}, OpsCase{Dtype::kF32, true},
                         OpsCase{Dtype::kBf16, false}, OpsCase{Dtype::kBf16, true},
                         OpsCase{Dtype::kF16, false}, OpsCase{Dtype::kF16, true});
}
inline std::string ops_case_name(const testing::TestParamInfo<OpsCase>& parameter) {
  return std::string(name(parameter.param.dtype)) + (parameter.param.shifted ? "Shifted" : "");
}

inline void add_to(Doubles& sum, const Doubles& values) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}

/// |got - expected| <= relative |expected| + absolute magnitude, element by element; and nothing
/// outside the tensor was written.
inline void expect_close(const GuardedTensor& got, const Doubles& expected, double relative,
                         double absolute_bound, const Doubles& magnitude, const std::string& what) {
  EXPECT_TRUE(got.intact()) << what << " wrote outside its memory";
  const Doubles values = got.values();
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double bound =
        relative * std::abs(expected[i]) + absolute_bound * magnitude[i] + least(got.dtype());
    ASSERT_LE(std::abs(values[i] - expected[i]), bound)
        << what << ": element " << i << " is " << values[i] << ", expected " << expected[i];
  }
}

}  // namespace strata::test
