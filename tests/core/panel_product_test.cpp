#include "core/cpu/panel_product.h"

#include <fmt/format.h>
#include <omp.h>

#include "tests/support/stored_weights.h"

// Products of many rows with quantised weights against the formula in double, of what the weights
// hold after rounding and, where panels are bf16, after rounding to that.

namespace strata::test {
namespace {

using Kernels = cpu::PanelProduct::Kernels;

struct PanelCase {
  Dtype compute;
  Dtype weights;
  Kernels kernels;
  bool one_thread;  // else as many as OpenMP has: a sanitizer asks for one
};

class PanelProductContract : public testing::TestWithParam<PanelCase> {
 protected:
  void SetUp() override {
    threads_ = omp_get_max_threads();
    if (GetParam().one_thread) omp_set_num_threads(1);
  }
  void TearDown() override { omp_set_num_threads(threads_); }

  /// Whether panels are bf16 here.
  static bool in_bf16() {
    return GetParam().compute == Dtype::kBf16 && GetParam().kernels == Kernels::kFastest &&
           cpu::has_avx512_bf16();
  }
  /// What panels take weights for.
  static Doubles in_panels(Doubles values) {
    if (!in_bf16()) return values;
    for (double& value : values) value = static_cast<float>(bf16(static_cast<float>(value)));
    return values;
  }

 private:
  int threads_ = 1;
};

TEST_P(PanelProductContract, MultipliesAndAddsTheBias) {
  cpu::PanelProduct panel_product(GetParam().kernels);
  const Dtype compute = GetParam().compute;
  for (const std::int64_t in : {0, 64, 192, 2048}) {
    for (const std::int64_t out : {1, 16, 37, 301}) {
      if (in * out > 200000) continue;
      const StoredWeights w(GetParam().weights, out, in);
      const Doubles values = in_panels(w.values);
      for (const std::int64_t rows : {0, 1, 2, 9, 16, 33, 70, 515}) {
        if (rows > 70 && in * out > 12000) continue;
        const Dtype output = rows % 2 == 0 ? compute : Dtype::kF32;
        const bool with_bias = rows != 16;
        GuardedTensor x(compute, {rows, in}, normal_values(rows * in, 6));
        GuardedTensor bias(compute, {out}, normal_values(out, 7));
        GuardedTensor y(output, {rows, out});
        panel_product.run({.rows = rows,
                           .n = out,
                           .k = in,
                           .compute = compute,
                           .weights = GetParam().weights,
                           .output = output,
                           .x = x.view().data(),
                           .w = w.stored.data(),
                           .bias = with_bias ? bias.view().data() : nullptr,
                           .y = y.view().data()});
        const Doubles b = with_bias ? bias.values() : Doubles();
        expect_close(y, linear(x.values(), values, b, rows, in, out), unit(output),
                     kFloatUnit * (8.0 + std::sqrt(static_cast<double>(in))),
                     linear(absolute(x.values()), absolute(values), absolute(b), rows, in, out),
                     fmt::format("y [{}, {}, {}]", rows, in, out));
      }
    }
  }
}

std::vector<PanelCase> panel_cases() {
  std::vector<PanelCase> cases;
  for (const Dtype weights : {Dtype::kQ8, Dtype::kQ4}) {
    for (const bool one_thread : {true, false}) {
      for (const Dtype compute : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
        cases.push_back({compute, weights, Kernels::kFastest, one_thread});
      }
      cases.push_back({Dtype::kBf16, weights, Kernels::kPortable, one_thread});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cpu, PanelProductContract, testing::ValuesIn(panel_cases()),
                         [](const auto& parameter) {
                           const PanelCase& c = parameter.param;
                           return fmt::format("{}by{}{}{}", name(c.compute), name(c.weights),
                                              c.kernels == Kernels::kPortable ? "Portable" : "",
                                              c.one_thread ? "OnOneThread" : "");
                         });

TEST(PanelProduct, GivesTheSameBitsAgain) {
  constexpr std::int64_t kRows = 70, kIn = 192, kOut = 301;
  const StoredWeights w(Dtype::kQ4, kOut, kIn);
  GuardedTensor x(Dtype::kBf16, {kRows, kIn}, normal_values(kRows * kIn, 6));
  cpu::PanelProduct panel_product;
  Doubles first;
  for (int round = 0; round < 20; ++round) {
    GuardedTensor y(Dtype::kF32, {kRows, kOut});
    panel_product.run({.rows = kRows,
                       .n = kOut,
                       .k = kIn,
                       .compute = Dtype::kBf16,
                       .weights = Dtype::kQ4,
                       .output = Dtype::kF32,
                       .x = x.view().data(),
                       .w = w.stored.data(),
                       .bias = nullptr,
                       .y = y.view().data()});
    if (round == 0) first = y.values();
    ASSERT_EQ(y.values(), first) << "round " << round;
  }
}

TEST(PanelProduct, LeavesTheNumberOfThreadsAlone) {
  const int before = omp_get_max_threads();
  const std::vector<std::byte> w(storage_bytes(Dtype::kQ8, 64 * 64));
  GuardedTensor x(Dtype::kF32, {16, 64}, normal_values(16 * 64, 6));
  GuardedTensor y(Dtype::kF32, {16, 64});
  cpu::PanelProduct().run({.rows = 16,
                           .n = 64,
                           .k = 64,
                           .compute = Dtype::kF32,
                           .weights = Dtype::kQ8,
                           .output = Dtype::kF32,
                           .x = x.view().data(),
                           .w = w.data(),
                           .bias = nullptr,
                           .y = y.view().data()});
  EXPECT_EQ(omp_get_max_threads(), before);
  for (const double value : y.values()) EXPECT_EQ(value, 0.0);
}

}  // namespace
}  // namespace strata::test
