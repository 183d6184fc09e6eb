#include <fmt/format.h>

#include "tests/support/ops_case.h"

// Products, lookups, elementwise operations and cross-entropy against reference_ops, at sizes that
// are multiples of nothing. Bounds: the rounding of the output, and a small multiple of the fp32
// unit times the sum of the magnitudes of the terms.

namespace strata::test {
namespace {

std::size_t length(std::int64_t count) { return static_cast<std::size_t>(count); }

struct ProductSize {
  std::int64_t rows, in, out;
};
constexpr ProductSize kProductSizes[] = {{0, 3, 5},     {1, 1, 1},     {1, 33, 31},  {3, 0, 4},
                                         {5, 7, 1},     {31, 64, 33},  {33, 31, 64}, {65, 100, 129},
                                         {128, 64, 96}, {800, 48, 40}, {40, 33, 800}};
double product_bound(std::int64_t terms) {
  return kFloatUnit * (8.0 + std::sqrt(static_cast<double>(terms)));
}

TEST_P(OpsContract, LinearMultipliesAndAddsTheBias) {
  for (const auto& [rows, in, out] : kProductSizes) {
    const GuardedTensor x_values = tensor({rows, in}, normal_values(rows * in, 1));
    GuardedTensor x = x_values;
    GuardedTensor w = tensor({out, in}, normal_values(out * in, 2));
    GuardedTensor bias = tensor({out}, normal_values(out, 3));
    for (const bool with_bias : {false, true}) {
      for (const bool wide : {false, true}) {
        GuardedTensor y = wide ? fp32({rows, out}) : tensor({rows, out});
        ops().linear(x.view(), w.view(), with_bias ? bias.view() : TensorView(), y.view(),
                     stream());
        const Doubles b = with_bias ? bias.values() : Doubles();
        expect_close(y, linear(x.values(), w.values(), b, rows, in, out),
                     unit(wide ? Dtype::kF32 : dtype()), product_bound(in),
                     linear(absolute(x.values()), absolute(w.values()), absolute(b), rows, in, out),
                     fmt::format("y [{}, {}, {}] bias {}", rows, in, out, with_bias));
      }
    }
  }
}

TEST_P(OpsContract, LinearBackwardInputMultipliesOrAccumulates) {
  for (const auto& [rows, in, out] : kProductSizes) {
    GuardedTensor dy = tensor({rows, out}, normal_values(rows * out, 1));
    GuardedTensor w = tensor({out, in}, normal_values(out * in, 2));
    const Doubles expected = linear_backward_input(dy.values(), w.values(), rows, in, out);
    const Doubles magnitude =
        linear_backward_input(absolute(dy.values()), absolute(w.values()), rows, in, out);
    GuardedTensor dx = tensor({rows, in});
    ops().linear_backward_input(dy.view(), w.view(), dx.view(), false, stream());
    expect_close(dx, expected, unit(dtype()), product_bound(out), magnitude, "dx");

    GuardedTensor sum = fp32({rows, in}, normal_values(rows * in, 4));
    Doubles total = sum.values();
    Doubles total_magnitude = absolute(total);
    add_to(total, expected);
    add_to(total_magnitude, magnitude);
    ops().linear_backward_input(dy.view(), w.view(), sum.view(), true, stream());
    expect_close(sum, total, kFloatUnit, product_bound(out), total_magnitude, "accumulated dx");
  }
}

TEST_P(OpsContract, LinearBackwardWeightAddsToBothGradients) {
  for (const auto& [rows, in, out] : kProductSizes) {
    GuardedTensor dy = tensor({rows, out}, normal_values(rows * out, 1));
    GuardedTensor x = tensor({rows, in}, normal_values(rows * in, 2));
    GuardedTensor dw = fp32({out, in}, normal_values(out * in, 3));
    GuardedTensor dbias = fp32({out}, normal_values(out, 4));
    Doubles dw_sum = linear_backward_weight(dy.values(), x.values(), rows, in, out);
    Doubles dw_magnitude =
        linear_backward_weight(absolute(dy.values()), absolute(x.values()), rows, in, out);
    Doubles dbias_sum = column_sums(dy.values(), out);
    Doubles dbias_magnitude = column_sums(absolute(dy.values()), out);
    add_to(dw_sum, dw.values());
    add_to(dw_magnitude, absolute(dw.values()));
    add_to(dbias_sum, dbias.values());
    add_to(dbias_magnitude, absolute(dbias.values()));
    ops().linear_backward_weight(dy.view(), x.view(), dw.view(), dbias.view(), stream());
    expect_close(dw, dw_sum, kFloatUnit, product_bound(rows), dw_magnitude, "dw");
    expect_close(dbias, dbias_sum, kFloatUnit, product_bound(rows), dbias_magnitude, "dbias");
    ops().linear_backward_weight(dy.view(), x.view(), {}, {}, stream());  // frozen: no effect
    expect_close(dw, dw_sum, kFloatUnit, product_bound(rows), dw_magnitude, "dw");
  }
}

TEST_P(OpsContract, EmbeddingCopiesAddsAndScattersRows) {
  const std::vector<std::int32_t> tokens = {0, 4, 4, 2, 6, 4, 1, 0};
  GuardedTensor ids = integers(tokens);
  for (const std::int64_t features : {1, 33, 300}) {
    GuardedTensor table = tensor({7, features}, normal_values(7 * features, 1));
    GuardedTensor y = tensor({8, features});
    const Doubles rows = embedding(tokens, table.values(), features);
    ops().embedding(ids.view(), table.view(), y.view(), false, stream());
    expect_close(y, rows, 0.0, 0.0, rows, "y");
    ops().embedding(ids.view(), table.view(), y.view(), true, stream());
    Doubles twice = rows;
    for (double& value : twice) value *= 2.0;
    expect_close(y, twice, unit(dtype()), 0.0, rows, "accumulated y");

    GuardedTensor dy = tensor({8, features}, normal_values(8 * features, 2));
    for (const std::int64_t row_begin : {0, 2, 5}) {
      GuardedTensor dtable = fp32({3, features}, Doubles(length(3 * features), 1.0));
      ops().embedding_backward(ids.view(), dy.view(), row_begin, dtable.view(), stream());
      Doubles expected = embedding_backward(tokens, dy.values(), features, row_begin, 3);
      Doubles magnitude = embedding_backward(tokens, absolute(dy.values()), features, row_begin, 3);
      for (double& value : expected) value += 1.0;
      for (double& value : magnitude) value += 1.0;
      expect_close(dtable, expected, kFloatUnit, 8.0 * kFloatUnit, magnitude, "dtable");
    }
  }
  GuardedTensor table = tensor({6, 3}, normal_values(18, 1));
  GuardedTensor y = tensor({8, 3});
  EXPECT_THROW(ops().embedding(ids.view(), table.view(), y.view(), false, stream()), Error);
}

constexpr std::int64_t kCounts[] = {0, 1, 15, 16, 17, 31, 33, 100, 1003, 40000};

TEST_P(OpsContract, ActivationsAndTheirGradientsMatchInPlaceToo) {
  for (const Activation f : {Activation::kGeluNew, Activation::kSilu, Activation::kRelu}) {
    for (const std::int64_t count : kCounts) {
      GuardedTensor x = tensor({count}, normal_values(count, 1, 3.0));
      GuardedTensor dy = tensor({count}, normal_values(count, 2));
      Doubles value = x.values();
      Doubles slope = x.values();
      Doubles magnitude = absolute(x.values());
      for (std::size_t i = 0; i < value.size(); ++i) {
        slope[i] = activation_slope(f, value[i]);
        value[i] = activation(f, value[i]);
        magnitude[i] = 1.0 + magnitude[i];
      }
      const Doubles gradient = dy.values();
      Doubles dx_magnitude = magnitude;
      for (std::size_t i = 0; i < slope.size(); ++i) {
        slope[i] *= gradient[i];
        dx_magnitude[i] *= std::abs(gradient[i]);
      }
      GuardedTensor y = tensor({count});
      GuardedTensor dx = tensor({count});
      ops().activation(f, x.view(), y.view(), stream());
      ops().activation_backward(f, dy.view(), x.view(), dx.view(), stream());
      expect_close(y, value, unit(dtype()), 16.0 * kFloatUnit, magnitude, "y");
      expect_close(dx, slope, unit(dtype()), 32.0 * kFloatUnit, dx_magnitude, "dx");
      ops().activation_backward(f, dy.view(), x.view(), dy.view(), stream());
      EXPECT_EQ(dy.values(), dx.values());
      ops().activation(f, x.view(), x.view(), stream());
      EXPECT_EQ(x.values(), y.values());
    }
  }
}

TEST_P(OpsContract, GatedActivationsAndTheirGradientsMatchInPlaceToo) {
  const std::int64_t count = 1003;
  for (const Activation f : {Activation::kGeluNew, Activation::kSilu, Activation::kRelu}) {
    GuardedTensor gate = tensor({count}, normal_values(count, 1, 3.0));
    GuardedTensor up = tensor({count}, normal_values(count, 2));
    GuardedTensor dy = tensor({count}, normal_values(count, 3));
    const Doubles g = gate.values(), u = up.values(), d = dy.values();
    Doubles y_expected(g.size()), dgate_expected(g.size()), dup_expected(g.size());
    Doubles y_magnitude(g.size()), dgate_magnitude(g.size()), dup_magnitude(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      y_expected[i] = activation(f, g[i]) * u[i];
      dgate_expected[i] = d[i] * u[i] * activation_slope(f, g[i]);
      dup_expected[i] = d[i] * activation(f, g[i]);
      y_magnitude[i] = (1.0 + std::abs(g[i])) * std::abs(u[i]);
      dgate_magnitude[i] = y_magnitude[i] * std::abs(d[i]);
      dup_magnitude[i] = (1.0 + std::abs(g[i])) * std::abs(d[i]);
    }
    GuardedTensor y = tensor({count}), dgate = tensor({count}), dup = tensor({count});
    ops().gated_activation(f, gate.view(), up.view(), y.view(), stream());
    ops().gated_activation_backward(f, dy.view(), gate.view(), up.view(), dgate.view(), dup.view(),
                                    stream());
    expect_close(y, y_expected, unit(dtype()), 16.0 * kFloatUnit, y_magnitude, "y");
    expect_close(dgate, dgate_expected, unit(dtype()), 32.0 * kFloatUnit, dgate_magnitude, "dgate");
    expect_close(dup, dup_expected, unit(dtype()), 16.0 * kFloatUnit, dup_magnitude, "dup");
    GuardedTensor y_in_gate = gate;
    ops().gated_activation(f, y_in_gate.view(), up.view(), y_in_gate.view(), stream());
    EXPECT_EQ(y_in_gate.values(), y.values());
    ops().gated_activation_backward(f, dy.view(), gate.view(), up.view(), gate.view(), up.view(),
                                    stream());
    EXPECT_EQ(gate.values(), dgate.values());
    EXPECT_EQ(up.values(), dup.values());
  }
}

TEST_P(OpsContract, AddConvertAndFillZeroMatchElementByElement) {
  for (const std::int64_t count : kCounts) {
    GuardedTensor a = tensor({count}, normal_values(count, 1));
    GuardedTensor b = tensor({count}, normal_values(count, 2));
    Doubles sum = a.values();
    const Doubles addend = b.values();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += addend[i];
    GuardedTensor y = tensor({count});
    ops().add(a.view(), b.view(), y.view(), stream());
    expect_close(y, sum, unit(dtype()) + 2 * kFloatUnit, 0.0, sum, "sum");
    ops().add(a.view(), b.view(), a.view(), stream());
    EXPECT_EQ(a.values(), y.values());
    for (const Dtype target : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
      GuardedTensor to(target, {count}, GetParam().shifted);
      Doubles scaled = b.values();
      for (double& value : scaled) value *= 0.375;
      ops().convert(b.view(), 0.375f, to.view(), stream());
      expect_close(to, scaled, unit(target) + 2 * kFloatUnit, 0.0, scaled, "converted");
      ops().fill_zero(to.view(), stream());
      expect_close(to, Doubles(length(count)), 0.0, 0.0, Doubles(length(count)), "zeros");
    }
  }
}

TEST_P(OpsContract, CrossEntropyInTilesMatchesTheWholeVocabulary) {
  const std::int64_t vocabulary = 203;
  for (const std::int64_t rows : {0, 1, 33}) {
    const Doubles logits = normal_values(rows * vocabulary, 1, 4.0);
    GuardedTensor whole = tensor({rows, vocabulary}, logits);
    std::vector<std::int32_t> labels(length(rows));
    for (std::size_t t = 0; t < labels.size(); ++t) {
      labels[t] = t % 5 == 3 ? -100 : static_cast<std::int32_t>(t * 37 % length(vocabulary));
    }
    GuardedTensor label = integers(labels);
    GuardedTensor maximum = fp32({rows}), sum = fp32({rows}), label_logit = fp32({rows});
    const std::int64_t tile_rows[] = {0, 64, 65, 203};
    std::vector<GuardedTensor> tiles;
    for (int tile = 0; tile < 3; ++tile) {
      const std::int64_t begin = tile_rows[tile], width = tile_rows[tile + 1] - begin;
      Doubles values;
      for (std::int64_t t = 0; t < rows; ++t) {
        const auto row = logits.begin() + t * vocabulary + begin;
        values.insert(values.end(), row, row + width);
      }
      tiles.push_back(tensor({rows, width}, values));
      ops().softmax_statistics(tiles.back().view(), begin, label.view(), tile == 0, maximum.view(),
                               sum.view(), label_logit.view(), stream());
    }
    GuardedTensor loss = fp32({rows});
    ops().cross_entropy(maximum.view(), sum.view(), label_logit.view(), label.view(), loss.view(),
                        stream());
    const Doubles exact = whole.values();
    const double largest = 16.0 + 4.0 * 5.0;
    expect_close(loss, cross_entropy(exact, labels), kFloatUnit, 16.0 * kFloatUnit,
                 Doubles(labels.size(), largest), "loss");
    double total = 0.0, expected_total = 0.0;
    ops().sum(loss.view(), &total, stream());
    for (const double value : loss.values()) expected_total += value;
    EXPECT_NEAR(total, expected_total, 1e-12 * (1.0 + std::abs(expected_total)));

    const Doubles gradient = cross_entropy_backward(exact, labels, 0.25);
    for (int tile = 0; tile < 3; ++tile) {
      const std::int64_t begin = tile_rows[tile], width = tile_rows[tile + 1] - begin;
      Doubles expected;
      for (std::int64_t t = 0; t < rows; ++t) {
        const auto row = gradient.begin() + t * vocabulary + begin;
        expected.insert(expected.end(), row, row + width);
      }
      GuardedTensor& logit_tile = tiles[length(tile)];
      ops().cross_entropy_backward(logit_tile.view(), begin, label.view(), maximum.view(),
                                   sum.view(), 0.25f, logit_tile.view(), stream());
      expect_close(logit_tile, expected, unit(dtype()) + 40.0 * kFloatUnit,
                   0.25 * 40.0 * kFloatUnit, Doubles(expected.size(), 1.0), "dlogits");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpsContract, all_ops_cases(), ops_case_name);

}  // namespace
}  // namespace strata::test
