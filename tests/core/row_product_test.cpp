#include "core/cpu/row_product.h"

#include <fmt/format.h>

#include <functional>

#include "tests/support/stored_weights.h"

// Products of few rows against the formula in double, of what the weights hold after rounding; all
// kernels this processor can run. Bits must not depend on the number of rows.

namespace strata::test {
namespace {

using Kernels = cpu::RowProduct::Kernels;

std::size_t length(std::int64_t count) { return static_cast<std::size_t>(count); }

/// dtypes of x and w.
struct Pairing {
  Dtype compute;
  Dtype weights;
};

class RowProductContract : public testing::TestWithParam<Pairing> {
 protected:
  Dtype compute() const { return GetParam().compute; }
  /// Plain weights may have any length.
  std::vector<std::int64_t> lengths() const {
    if (is_quantized(GetParam().weights)) return {0, 64, 192, 2048};
    return {0, 1, 31, 64, 100, 192, 2048};
  }
};

TEST_P(RowProductContract, MultipliesAndAddsTheBias) {
  for (const std::int64_t in : lengths()) {
    for (const std::int64_t out : {1, 7, 16, 37}) {
      const StoredWeights w(GetParam().weights, out, in);
      for (const std::int64_t rows : {0, 1, 2, 3, 4, 5, 7, 33}) {
        GuardedTensor x(compute(), {rows, in}, normal_values(rows * in, 6));
        GuardedTensor bias(compute(), {out}, normal_values(out, 7));
        for (const Kernels kernels : {Kernels::kFastest, Kernels::kPortable}) {
          const Dtype output = kernels == Kernels::kFastest ? compute() : Dtype::kF32;
          const bool with_bias = rows % 2 == 1;
          GuardedTensor y(output, {rows, out});
          cpu::RowProduct(kernels).run({.rows = rows,
                                        .n = out,
                                        .k = in,
                                        .compute = compute(),
                                        .weights = w.dtype,
                                        .output = output,
                                        .x = x.view().data(),
                                        .w = w.stored.data(),
                                        .bias = with_bias ? bias.view().data() : nullptr,
                                        .y = y.view().data()});
          const Doubles b = with_bias ? bias.values() : Doubles();
          expect_close(y, linear(x.values(), w.values, b, rows, in, out), unit(output),
                       kFloatUnit * (8.0 + std::sqrt(static_cast<double>(in))),
                       linear(absolute(x.values()), absolute(w.values), absolute(b), rows, in, out),
                       fmt::format("y [{}, {}, {}]", rows, in, out));
        }
      }
    }
  }
}

/// Rows of a product of all of them at once have the bits they have in products of fewer.
void expect_rows_alone(const std::function<void(ConstTensorView, TensorView)>& multiply,
                       Dtype compute, std::int64_t in, std::int64_t out) {
  constexpr std::int64_t kRows = 45;  // more than one pass takes of rows as long as those here
  GuardedTensor x(compute, {kRows, in}, normal_values(kRows * in, 8));
  GuardedTensor all(Dtype::kF32, {kRows, out});
  multiply(x.view(), all.view());
  const Doubles want = all.values();
  for (const std::int64_t rows : {1, 3, 8, 21}) {
    for (const std::int64_t begin : {std::int64_t{0}, kRows / 2 + 1, kRows - rows}) {
      GuardedTensor some(Dtype::kF32, {rows, out});
      multiply(x.view().rows(begin, rows), some.view());
      const Doubles got = some.values();
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], want[length(begin * out) + i])
            << rows << " rows from " << begin << ", element " << i;
      }
    }
  }
}

TEST_P(RowProductContract, RowsDoNotDependOnTheirNumber) {
  const std::int64_t in = is_quantized(GetParam().weights) ? 8256 : 8259, out = 11;
  const StoredWeights w(GetParam().weights, out, in);
  const auto device = make_cpu_device(0, true);
  const auto stream = device->make_stream();
  expect_rows_alone(
      [&](ConstTensorView x, TensorView y) { device->ops().linear(x, w.view(), {}, y, *stream); },
      compute(), in, out);
  cpu::RowProduct portable(Kernels::kPortable);
  const auto multiply = [&](ConstTensorView x, TensorView y) {
    portable.run({.rows = x.shape()[0],
                  .n = out,
                  .k = in,
                  .compute = compute(),
                  .weights = w.dtype,
                  .output = Dtype::kF32,
                  .x = x.data(),
                  .w = w.stored.data(),
                  .bias = nullptr,
                  .y = y.data()});
  };
  expect_rows_alone(multiply, compute(), in, out);
}

INSTANTIATE_TEST_SUITE_P(
    Cpu, RowProductContract,
    testing::Values(Pairing{Dtype::kF32, Dtype::kF32}, Pairing{Dtype::kBf16, Dtype::kBf16},
                    Pairing{Dtype::kF16, Dtype::kF16}, Pairing{Dtype::kF32, Dtype::kQ8},
                    Pairing{Dtype::kBf16, Dtype::kQ8}, Pairing{Dtype::kF16, Dtype::kQ8},
                    Pairing{Dtype::kF32, Dtype::kQ4}, Pairing{Dtype::kBf16, Dtype::kQ4},
                    Pairing{Dtype::kF16, Dtype::kQ4}),
    [](const auto& parameter) {
      return fmt::format("{}by{}", name(parameter.param.compute), name(parameter.param.weights));
    });

TEST(RowProduct, KeepsWhatIsNotFiniteAndSmallHalves) {
  const Doubles special = {INFINITY, -INFINITY, NAN, 0x1p-24, -0x1p-24, 0x1p-14, 65504.0, -0.0};
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    for (std::size_t i = 0; i < special.size(); ++i) {
      GuardedTensor w(dtype, {1, 1}, Doubles{special[i]});
      GuardedTensor x(dtype, {1, 1}, Doubles{1.0});
      GuardedTensor y(Dtype::kF32, {1, 1});
      cpu::RowProduct().run({.rows = 1,
                             .n = 1,
                             .k = 1,
                             .compute = dtype,
                             .weights = dtype,
                             .output = Dtype::kF32,
                             .x = x.view().data(),
                             .w = w.view().data(),
                             .bias = nullptr,
                             .y = y.view().data()});
      const double want = w.values()[0], got = y.values()[0];
      EXPECT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << got << " for " << want;
    }
  }
}

TEST(QuantizedOps, LinearAndEmbeddingTakeRowsOfGroups) {
  const auto device = make_cpu_device();
  const auto stream = device->make_stream();
  for (const Dtype dtype : {Dtype::kQ8, Dtype::kQ4}) {
    const StoredWeights table(dtype, 9, 192);
    GuardedTensor ids(Dtype::kI32, {4}, Doubles{3, 0, 8, 3});
    for (const Dtype compute : {Dtype::kF32, Dtype::kBf16}) {
      GuardedTensor y(compute, {4, 192});
      Doubles want;
      for (const std::int64_t id : {3, 0, 8, 3}) {
        const auto row = table.values.begin() + id * 192;
        want.insert(want.end(), row, row + 192);
      }
      device->ops().embedding(ids.view(), table.view(), y.view(), false, *stream);
      expect_close(y, want, unit(compute), 0.0, want, "rows");
      for (double& value : want) value *= 2.0;
      device->ops().embedding(ids.view(), table.view(), y.view(), true, *stream);
      expect_close(y, want, 2.0 * unit(compute), 0.0, want, "rows twice");

      GuardedTensor x(compute, {70, 192}, normal_values(70 * 192, 3));
      GuardedTensor logits(Dtype::kF32, {70, 9});
      device->ops().linear(x.view(), table.view(), {}, logits.view(), *stream);
      // In 16 bits, panels round weights, and bytes round x to 1/254 of the largest of its group.
      const bool rounds = compute == Dtype::kBf16;
      const Doubles most = rounds ? Doubles(70 * 192, 4.5) : absolute(x.values());
      expect_close(logits, linear(x.values(), table.values, {}, 70, 192, 9), kFloatUnit,
                   (rounds ? 1.0 / 254 : 0.0) + 24.0 * kFloatUnit,
                   linear(most, absolute(table.values), {}, 70, 192, 9), "logits");
    }
    GuardedTensor x(Dtype::kF32, {2, 100});
    GuardedTensor y(Dtype::kF32, {2, 9});
    std::vector<std::byte> memory(storage_bytes(dtype, 900));
    const ConstTensorView w(memory.data(), dtype, {9, 100});
    EXPECT_THROW(device->ops().linear(x.view(), w, {}, y.view(), *stream), Error);
    EXPECT_THROW(
        device->ops().linear(x.view(), table.view().reshape({27, 64}), {}, y.view(), *stream),
        Error);
  }
}

}  // namespace
}  // namespace strata::test
