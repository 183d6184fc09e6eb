#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/device.h"
#include "core/ops.h"

namespace strata {
namespace {

TEST(CpuDevice, GivesPageAlignedMemoryOfAnySize) {
  const auto device = make_cpu_device(1);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{4097}}) {
    const Buffer buffer = device->allocate(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096, 0u);
    EXPECT_EQ(buffer.bytes(), bytes);
    buffer.data()[bytes - 1] = std::byte{1};
  }
  EXPECT_EQ(device->allocate(0).bytes(), 0u);
}

TEST(CpuDevice, NamesTheSizeItCannotAllocate) {
  try {
    make_cpu_device(1)->allocate(std::size_t{1} << 60);
    FAIL() << "2^60 bytes were allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos);
  }
}

TEST(CpuDevice, RefusesViewsLargerThanTheBuffer) {
  const Buffer buffer = allocate_host(100);
  EXPECT_EQ(buffer.view(Dtype::kF32, {5, 5}).data(), buffer.data());
  EXPECT_THROW(buffer.view(Dtype::kF32, {26}), Error);
  EXPECT_THROW(Buffer().view(Dtype::kU8, {1}), Error);
}

TEST(CpuDevice, CopiesOnTheStreamAndLeavesEqualAddressesAlone) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream();
  std::vector<float> from = {1.0f, 2.0f};
  std::vector<float> to(2);
  const ConstTensorView source(from.data(), Dtype::kF32, {2});
  device->copy(source, TensorView(to.data(), Dtype::kF32, {2}), *stream);
  EXPECT_EQ(to, from);
  device->copy(source, TensorView(from.data(), Dtype::kF32, {2}), *stream);
  EXPECT_EQ(from[1], 2.0f);
  EXPECT_THROW(device->copy(source, TensorView(to.data(), Dtype::kF32, {1}), *stream), Error);
  EXPECT_TRUE(device->is_host_accessible());
}

TEST(CpuOps, NamesTheOperandWhoseShapeIsWrong) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream();
  const Buffer memory = allocate_host(4096);
  const TensorView x = memory.view(Dtype::kF32, {2, 3});
  const TensorView w = memory.view(Dtype::kF32, {5, 4});
  const TensorView y = memory.view(Dtype::kF32, {2, 5});
  try {
    device->ops().linear(x, w, {}, y, *stream);
    FAIL() << "shapes that do not fit were multiplied";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "linear: w is [5, 4] of fp32, expected [5, 3] of fp32");
  }
  EXPECT_THROW(device->ops().add(x, w, y, *stream), Error);
  EXPECT_THROW(make_cpu_device(-1), Error);
}

}  // namespace
}  // namespace strata
