#include <fmt/format.h>

#include "tests/support/ops_case.h"

// Normalisation and rotary embedding against reference_ops.

namespace strata::test {
namespace {

using OpsNormContract = OpsContract;

constexpr std::int64_t kRows[] = {0, 1, 3, 65, 130};
constexpr std::int64_t kFeatures[] = {1, 15, 16, 33, 64, 100, 300};
constexpr double kEps = 1e-5;
constexpr double kBound = 32.0 * kFloatUnit;

/// sum over a row's elements of |a|, divided by their number, for each element of the row.
Doubles row_means(const Doubles& a, std::int64_t features) {
  Doubles result(a.size());
  const auto width = static_cast<std::size_t>(features);
  for (std::size_t i = 0; i < a.size(); ++i) {
    result[i / width * width] += std::abs(a[i]) / static_cast<double>(features);
  }
  for (std::size_t i = 0; i < a.size(); ++i) result[i] = result[i / width * width];
  return result;
}

/// Magnitudes of the terms of dx and dw of a normalisation whose normalised rows are at most
/// `normalised` large.
struct GradientMagnitude {
  Doubles dx;
  Doubles dw;
};
GradientMagnitude gradient_magnitude(const Doubles& dy, const Doubles& normalised, const Doubles& w,
                                     const Doubles& rstd, std::int64_t features) {
  Doubles g(dy.size()), product(dy.size());
  const std::size_t width = w.size();
  for (std::size_t i = 0; i < dy.size(); ++i) {
    g[i] = std::abs(dy[i] * w[i % width]);
    product[i] = g[i] * normalised[i];
  }
  const Doubles g_mean = row_means(g, features), product_mean = row_means(product, features);
  GradientMagnitude result{Doubles(dy.size()), Doubles(width)};
  for (std::size_t i = 0; i < dy.size(); ++i) {
    result.dx[i] = rstd[i / width] * (g[i] + g_mean[i] + normalised[i] * product_mean[i]);
    result.dw[i % width] += std::abs(dy[i]) * normalised[i];
  }
  return result;
}

TEST_P(OpsNormContract, RmsNormAndItsGradientMatch) {
  for (const std::int64_t rows : kRows) {
    for (const std::int64_t features : kFeatures) {
      GuardedTensor x = tensor({rows, features}, normal_values(rows * features, 1, 2.0));
      GuardedTensor w = tensor({features}, normal_values(features, 2));
      GuardedTensor dy = tensor({rows, features}, normal_values(rows * features, 3));
      GuardedTensor y = tensor({rows, features}), dx = tensor({rows, features});
      GuardedTensor rstd = fp32({rows});
      GuardedTensor dw = fp32({features}, Doubles(w.values().size(), 1.0));
      ops().rms_norm(x.view(), w.view(), static_cast<float>(kEps), y.view(), rstd.view(), stream());
      ops().rms_norm_backward(dy.view(), x.view(), w.view(), rstd.view(), dx.view(), dw.view(),
                              stream());
      const Norm expected = rms_norm(x.values(), w.values(), kEps);
      NormGradient gradient = rms_norm_backward(dy.values(), x.values(), w.values(), kEps);
      for (double& value : gradient.dw) value += 1.0;
      Doubles normalised = rms_norm(x.values(), Doubles(w.values().size(), 1.0), kEps).y;
      normalised = absolute(normalised);
      const GradientMagnitude magnitude =
          gradient_magnitude(dy.values(), normalised, w.values(), expected.rstd, features);
      const std::string what = fmt::format("[{}, {}]", rows, features);
      expect_close(rstd, expected.rstd, kBound, 0.0, expected.rstd, "rstd " + what);
      // y is rounded before and after the product with w.
      expect_close(y, expected.y, 2.1 * unit(dtype()) + kBound, 0.0, expected.y, "y " + what);
      expect_close(dx, gradient.dx, unit(dtype()), kBound, magnitude.dx, "dx " + what);
      Doubles dw_magnitude = magnitude.dw;
      for (double& value : dw_magnitude) value += 1.0;
      expect_close(dw, gradient.dw, 0.0, unit(dtype()) + kBound, dw_magnitude, "dw " + what);
    }
  }
}

TEST_P(OpsNormContract, LayerNormAndItsGradientMatch) {
  for (const std::int64_t rows : kRows) {
    for (const std::int64_t features : kFeatures) {
      Doubles values = normal_values(rows * features, 1, 2.0);
      for (double& value : values) value += 1.5;
      GuardedTensor x = tensor({rows, features}, values);
      GuardedTensor w = tensor({features}, normal_values(features, 2));
      GuardedTensor b = tensor({features}, normal_values(features, 4));
      GuardedTensor dy = tensor({rows, features}, normal_values(rows * features, 3));
      GuardedTensor y = tensor({rows, features}), dx = tensor({rows, features});
      GuardedTensor mean = fp32({rows}), rstd = fp32({rows});
      const Doubles one(w.values().size(), 1.0);
      GuardedTensor dw = fp32({features}, one), db = fp32({features}, one);
      ops().layer_norm(x.view(), w.view(), b.view(), static_cast<float>(kEps), y.view(),
                       mean.view(), rstd.view(), stream());
      ops().layer_norm_backward(dy.view(), x.view(), w.view(), mean.view(), rstd.view(), dx.view(),
                                dw.view(), db.view(), stream());
      const Norm expected = layer_norm(x.values(), w.values(), b.values(), kEps);
      NormGradient gradient = layer_norm_backward(dy.values(), x.values(), w.values(), kEps);
      for (double& value : gradient.dw) value += 1.0;
      for (double& value : gradient.db) value += 1.0;
      // Subtracting the mean leaves errors of the size of x, not of the difference.
      Doubles normalised = absolute(x.values());
      add_to(normalised, row_means(x.values(), features));
      Doubles y_magnitude = normalised;
      const Doubles w_values = w.values(), b_values = b.values();
      for (std::size_t i = 0; i < normalised.size(); ++i) {
        const std::size_t row = i / one.size(), c = i % one.size();
        normalised[i] *= expected.rstd[row];
        y_magnitude[i] = normalised[i] * std::abs(w_values[c]) + std::abs(b_values[c]);
      }
      GradientMagnitude magnitude =
          gradient_magnitude(dy.values(), normalised, w_values, expected.rstd, features);
      add_to(magnitude.dw, one);
      Doubles db_magnitude = column_sums(absolute(dy.values()), features);
      add_to(db_magnitude, one);
      const std::string what = fmt::format("[{}, {}]", rows, features);
      expect_close(mean, expected.mean, 0.0, kBound, Doubles(mean.values().size(), 16.0), "mean");
      // With one feature the variance is rounding noise beside eps.
      expect_close(rstd, expected.rstd, kBound, 0.0, expected.rstd, "rstd " + what);
      expect_close(y, expected.y, unit(dtype()), kBound, y_magnitude, "y " + what);
      expect_close(dx, gradient.dx, unit(dtype()), kBound, magnitude.dx, "dx " + what);
      expect_close(dw, gradient.dw, 0.0, kBound, magnitude.dw, "dw " + what);
      expect_close(db, gradient.db, 0.0, kBound, db_magnitude, "db " + what);
    }
  }
}

TEST_P(OpsNormContract, RotaryTurnsPairsAndTurnsThemBack) {
  for (const std::int64_t head_size : {2, 16, 30, 64, 80}) {
    const std::int64_t heads = 3;
    const std::vector<std::int32_t> positions = {0, 1, 2, 100, 4095, 7};
    const auto rows = static_cast<std::int64_t>(positions.size());
    const Shape shape{rows, heads * head_size};
    std::vector<float> frequency;
    for (std::int64_t i = 0; i < head_size / 2; ++i) {
      frequency.push_back(static_cast<float>(
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_size))));
    }
    GuardedTensor position = integers(positions);
    GuardedTensor inverse_frequency =
        fp32({head_size / 2}, Doubles(frequency.begin(), frequency.end()));
    for (const bool inverse : {false, true}) {
      GuardedTensor x = tensor(shape, normal_values(shape.numel(), 1));
      const Doubles before = x.values();
      ops().rotary(x.view(), head_size, position.view(), inverse_frequency.view(), 1.25f, inverse,
                   stream());
      Doubles magnitude = absolute(before);
      for (std::size_t i = 0; i < magnitude.size(); ++i) {
        const auto half = static_cast<std::size_t>(head_size / 2);
        const bool upper = i % (2 * half) >= half;
        magnitude[i] += std::abs(before[upper ? i - half : i + half]);
      }
      expect_close(x, rotary(before, heads * head_size, positions, frequency, 1.25, inverse),
                   unit(dtype()), 1.25 * (unit(dtype()) + 4.0 * kFloatUnit), magnitude, "rotated");
    }
  }
}

TEST_P(OpsNormContract, GradientsOfFrozenParametersMayBeEmpty) {
  GuardedTensor x = tensor({3, 5}, normal_values(15, 1)), dy = tensor({3, 5}, normal_values(15, 2));
  GuardedTensor w = tensor({5}, normal_values(5, 3));
  GuardedTensor mean = fp32({3}, Doubles(3)), rstd = fp32({3}, Doubles(3, 1.0));
  GuardedTensor dw = fp32({5}, Doubles(5)), db = fp32({5}, Doubles(5));
  GuardedTensor dx = tensor({3, 5}), frozen = tensor({3, 5});
  ops().rms_norm_backward(dy.view(), x.view(), w.view(), rstd.view(), dx.view(), dw.view(),
                          stream());
  ops().rms_norm_backward(dy.view(), x.view(), w.view(), rstd.view(), frozen.view(), {}, stream());
  EXPECT_EQ(frozen.values(), dx.values());
  ops().layer_norm_backward(dy.view(), x.view(), w.view(), mean.view(), rstd.view(), dx.view(),
                            dw.view(), db.view(), stream());
  ops().layer_norm_backward(dy.view(), x.view(), w.view(), mean.view(), rstd.view(), frozen.view(),
                            {}, {}, stream());
  EXPECT_EQ(frozen.values(), dx.values());
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpsNormContract, all_ops_cases(), ops_case_name);

}  // namespace
}  // namespace strata::test
