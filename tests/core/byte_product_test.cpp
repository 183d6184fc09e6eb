#include "core/cpu/byte_product.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_ops.h"
#include "tests/support/stored_weights.h"

// Products of bytes with quantised weights against the formula in double, of what the weights hold
// and what x holds after rounding; and the rounding against its bound.

namespace strata::test {
namespace {

struct ByteCase {
  Dtype compute;
  Dtype weights;
};

/// Elements of x as bytes have them: steps of a hundred and twenty-seventh of the group's largest.
Doubles rounded(const Doubles& x) {
  Doubles values;
  for (std::size_t begin = 0; begin < x.size(); begin += kGroupNumel) {
    float largest = 0;
    for (std::size_t i = begin; i < begin + kGroupNumel; ++i) {
      largest = std::max(largest, std::abs(static_cast<float>(x[i])));
    }
    const float factor = largest > 0 ? 127.0f / largest : 0.0f;
    for (std::size_t i = begin; i < begin + kGroupNumel; ++i) {
      const float whole = std::nearbyint(static_cast<float>(x[i]) * factor);
      values.push_back(static_cast<double>(whole) * static_cast<double>(largest / 127.0f));
    }
  }
  return values;
}

class ByteProductContract : public testing::TestWithParam<ByteCase> {
 protected:
  void SetUp() override {
    if (!cpu::ByteProduct::possible(
            {.compute = GetParam().compute, .weights = GetParam().weights})) {
      GTEST_SKIP() << "this CPU has no AVX-512 VNNI";
    }
  }
  static cpu::LinearProduct product(GuardedTensor& x, const StoredWeights& w, GuardedTensor& y) {
    const Shape in = x.view().shape(), out = y.view().shape();
    return {.rows = in[0],
            .n = out[1],
            .k = in[1],
            .compute = GetParam().compute,
            .weights = w.dtype,
            .output = y.view().dtype(),
            .x = x.view().data(),
            .w = w.stored.data(),
            .bias = nullptr,
            .y = y.view().data()};
  }
};

TEST_P(ByteProductContract, MultipliesAndAddsTheBias) {
  cpu::ByteProduct byte_product;
  const Dtype compute = GetParam().compute;
  for (const std::int64_t in : {0, 64, 192, 1088}) {
    for (const std::int64_t out : {1, 16, 33, 101}) {
      const StoredWeights w(GetParam().weights, out, in);
      for (const std::int64_t rows : {0, 1, 2, 3, 4, 9, 300}) {
        if (rows > 9 && in * out > 20000) continue;
        GuardedTensor x(compute, {rows, in}, normal_values(rows * in, 6));
        GuardedTensor bias(compute, {out}, normal_values(out, 7));
        GuardedTensor y(rows % 2 == 0 ? compute : Dtype::kF32, {rows, out});
        cpu::LinearProduct layer = product(x, w, y);
        if (rows != 3) layer.bias = bias.view().data();
        byte_product.run(layer);
        const Doubles b = rows != 3 ? bias.values() : Doubles();
        const Doubles bytes = rounded(x.values());
        expect_close(y, linear(bytes, w.values, b, rows, in, out), unit(y.view().dtype()),
                     kFloatUnit * (8.0 + std::sqrt(static_cast<double>(in))),
                     linear(absolute(bytes), absolute(w.values), absolute(b), rows, in, out),
                     fmt::format("y [{}, {}, {}]", rows, in, out));
      }
    }
  }
}

TEST_P(ByteProductContract, RowsDoNotDependOnTheirNumber) {
  constexpr std::int64_t kRows = 300, kIn = 640, kOut = 40;  // more than one pass takes
  const StoredWeights w(GetParam().weights, kOut, kIn);
  const Doubles numbers = normal_values(kRows * kIn, 8);
  GuardedTensor x(GetParam().compute, {kRows, kIn}, numbers);
  GuardedTensor all(Dtype::kF32, {kRows, kOut});
  cpu::ByteProduct byte_product;
  byte_product.run(product(x, w, all));
  const Doubles want = all.values();
  for (const std::int64_t rows : {1, 2, 3, 5, 8}) {
    for (const std::int64_t begin : {std::int64_t{0}, kRows / 2 + 1, kRows - rows}) {
      const auto first = numbers.begin() + begin * kIn;
      GuardedTensor part(GetParam().compute, {rows, kIn}, Doubles(first, first + rows * kIn));
      GuardedTensor some(Dtype::kF32, {rows, kOut});
      byte_product.run(product(part, w, some));
      const Doubles got = some.values();
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], want[static_cast<std::size_t>(begin * kOut) + i])
            << rows << " rows from " << begin << ", element " << i;
      }
    }
  }
}

TEST_P(ByteProductContract, InterleavedWeightsGiveTheSameBits) {
  for (const std::int64_t in : {0, 64, 640, 2112}) {
    for (const std::int64_t out : {32, 96}) {
      const StoredWeights plain(GetParam().weights, out, in);
      StoredWeights interleaved = plain;
      interleaved.dtype = cpu::ByteProduct::interleaved(plain.view());
      EXPECT_EQ(storage_bytes(interleaved.dtype, out * in), plain.stored.size());
      cpu::ByteProduct::interleave({interleaved.stored.data(), plain.dtype, plain.shape});
      for (const std::int64_t rows : {1, 2, 3, 4, 9, 300}) {
        GuardedTensor x(GetParam().compute, {rows, in}, normal_values(rows * in, 6));
        GuardedTensor want(Dtype::kF32, {rows, out}), got(Dtype::kF32, {rows, out});
        cpu::ByteProduct byte_product;
        byte_product.run(product(x, plain, want));
        byte_product.run(product(x, interleaved, got));
        ASSERT_EQ(got.values(), want.values()) << fmt::format("y [{}, {}, {}]", rows, in, out);
      }
    }
  }
}

TEST_P(ByteProductContract, OperationsArrangeWeightsWhereBytesAlwaysMultiplyThem) {
  const auto [compute, weights] = GetParam();
  constexpr std::int64_t kRows = 5, kIn = 192, kOut = 64;
  cpu::CpuOps ops(1, true);
  const std::unique_ptr<Stream> stream = make_host_stream("compute");
  StoredWeights w(weights, kOut, kIn), narrow(weights, 33, kIn);
  GuardedTensor x(compute, {kRows, kIn}, normal_values(kRows * kIn, 6));
  GuardedTensor want(compute, {kRows, kOut}), got(compute, {kRows, kOut});
  ops.linear(x.view(), w.view(), {}, want.view(), *stream);
  const TensorView memory(w.stored.data(), weights, w.shape);
  EXPECT_EQ(ops.arrange(memory, Dtype::kF32, *stream), weights) << "no product of bytes";
  EXPECT_EQ(ops.arrange({narrow.stored.data(), weights, narrow.shape}, compute, *stream), weights);
  const Dtype arranged = ops.arrange(memory, compute, *stream);
  EXPECT_NE(arranged, weights);
  ops.linear(x.view(), {w.stored.data(), arranged, w.shape}, {}, got.view(), *stream);
  stream->synchronize();
  EXPECT_EQ(got.values(), want.values());
  EXPECT_NE(w.stored, StoredWeights(weights, kOut, kIn).stored) << "nothing was arranged";
}

TEST_P(ByteProductContract, SaysWhatIsNotFiniteAndTakesTinyGroupsForZero) {
  const StoredWeights w(GetParam().weights, 1, 64);
  for (const double special : {INFINITY, -INFINITY, NAN}) {
    Doubles numbers(64, 0.0);
    numbers[37] = special;
    GuardedTensor x(GetParam().compute, {1, 64}, numbers);
    GuardedTensor y(Dtype::kF32, {1, 1});
    cpu::ByteProduct().run(product(x, w, y));
    EXPECT_FALSE(std::isfinite(y.values()[0])) << special;
  }
  GuardedTensor x(GetParam().compute, {1, 64}, Doubles(64, 0x1p-120));
  GuardedTensor y(Dtype::kF32, {1, 1});
  cpu::ByteProduct().run(product(x, w, y));
  EXPECT_EQ(y.values()[0], 0.0);
}

INSTANTIATE_TEST_SUITE_P(
    Cpu, ByteProductContract,
    testing::Values(ByteCase{Dtype::kBf16, Dtype::kQ8}, ByteCase{Dtype::kBf16, Dtype::kQ4},
                    ByteCase{Dtype::kF16, Dtype::kQ8}, ByteCase{Dtype::kF16, Dtype::kQ4}),
    [](const auto& parameter) {
      return fmt::format("{}by{}", name(parameter.param.compute), name(parameter.param.weights));
    });

TEST(ByteProduct, LeavesProductsInFp32Alone) {
  EXPECT_FALSE(cpu::ByteProduct::possible({.compute = Dtype::kF32, .weights = Dtype::kQ4}));
  EXPECT_FALSE(cpu::ByteProduct::possible({.compute = Dtype::kBf16, .weights = Dtype::kBf16}));
}

}  // namespace
}  // namespace strata::test
