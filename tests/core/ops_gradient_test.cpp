#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/support/guarded_tensor.h"
#include "tests/support/reference_ops.h"

// The backward formulas of reference_ops against central differences of their forward formulas, all
// in double. Together with the contract tests: backend = reference = derivative.

namespace strata::test {
namespace {

using Function = std::function<Doubles(const Doubles&)>;

double inner(const Doubles& a, const Doubles& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// `gradient` must be the gradient of inner(dy, f(x)) to 1e-6 of its largest element. The
/// differences have an error of order step^2, so they are taken with two steps and extrapolated to
/// zero.
void expect_gradient(const Function& f, const Doubles& x, const Doubles& dy,
                     const Doubles& gradient) {
  ASSERT_EQ(gradient.size(), x.size());
  double largest = 0.0;
  for (const double value : gradient) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 1e-3) << "nothing to compare";
  const auto difference = [&](std::size_t i, double step) {
    Doubles up = x, down = x;
    up[i] += step;
    down[i] -= step;
    return (inner(dy, f(up)) - inner(dy, f(down))) / (2.0 * step);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double numeric = (4.0 * difference(i, 5e-4) - difference(i, 1e-3)) / 3.0;
    ASSERT_NEAR(gradient[i], numeric, 1e-6 * largest) << "element " << i;
  }
}

constexpr std::int64_t kRows = 3, kIn = 7, kOut = 5;

TEST(OpsGradient, OfLinearForEveryOperand) {
  const Doubles x = normal_values(kRows * kIn, 1), w = normal_values(kOut * kIn, 2);
  const Doubles bias = normal_values(kOut, 3), dy = normal_values(kRows * kOut, 4);
  expect_gradient([&](const Doubles& v) { return linear(v, w, bias, kRows, kIn, kOut); }, x, dy,
                  linear_backward_input(dy, w, kRows, kIn, kOut));
  expect_gradient([&](const Doubles& v) { return linear(x, v, bias, kRows, kIn, kOut); }, w, dy,
                  linear_backward_weight(dy, x, kRows, kIn, kOut));
  expect_gradient([&](const Doubles& v) { return linear(x, w, v, kRows, kIn, kOut); }, bias, dy,
                  column_sums(dy, kOut));
}

TEST(OpsGradient, OfEmbeddingForTheTable) {
  const std::vector<std::int32_t> ids = {2, 0, 2, 4};
  const Doubles table = normal_values(5 * 3, 1), dy = normal_values(4 * 3, 2);
  expect_gradient([&](const Doubles& v) { return embedding(ids, v, 3); }, table, dy,
                  embedding_backward(ids, dy, 3, 0, 5));
}

TEST(OpsGradient, OfRmsNormForEveryOperand) {
  const Doubles x = normal_values(kRows * kIn, 1), w = normal_values(kIn, 2);
  const Doubles dy = normal_values(kRows * kIn, 3);
  const NormGradient gradient = rms_norm_backward(dy, x, w, 1e-5);
  expect_gradient([&](const Doubles& v) { return rms_norm(v, w, 1e-5).y; }, x, dy, gradient.dx);
  expect_gradient([&](const Doubles& v) { return rms_norm(x, v, 1e-5).y; }, w, dy, gradient.dw);
}

TEST(OpsGradient, OfLayerNormForEveryOperand) {
  const Doubles x = normal_values(kRows * kIn, 1), w = normal_values(kIn, 2);
  const Doubles b = normal_values(kIn, 4), dy = normal_values(kRows * kIn, 3);
  const NormGradient gradient = layer_norm_backward(dy, x, w, 1e-5);
  expect_gradient([&](const Doubles& v) { return layer_norm(v, w, b, 1e-5).y; }, x, dy,
                  gradient.dx);
  expect_gradient([&](const Doubles& v) { return layer_norm(x, v, b, 1e-5).y; }, w, dy,
                  gradient.dw);
  expect_gradient([&](const Doubles& v) { return layer_norm(x, w, v, 1e-5).y; }, b, dy,
                  gradient.db);
}

TEST(OpsGradient, OfRotaryIsTheInverseTurn) {
  const std::vector<std::int32_t> positions = {0, 1, 17};
  const std::vector<float> frequency = {1.0f, 0.1f, 0.01f};
  const Doubles x = normal_values(3 * 12, 1), dy = normal_values(3 * 12, 2);
  expect_gradient([&](const Doubles& v) { return rotary(v, 12, positions, frequency, 1.5, false); },
                  x, dy, rotary(dy, 12, positions, frequency, 1.5, true));
}

TEST(OpsGradient, OfAttentionForEveryOperandWithGroupsAndMask) {
  const AttentionShape shape = {
      .sequences = 2, .tokens = 9, .heads = 4, .kv_heads = 2, .head_size = 3, .scale = 0.7f};
  std::vector<std::int32_t> window;
  for (std::int32_t t = 0; t < 18; ++t) window.push_back(std::max(0, t % 9 - 4));
  const Doubles q = normal_values(18 * 12, 1), k = normal_values(18 * 6, 2);
  const Doubles v = normal_values(18 * 6, 3), dy = normal_values(18 * 12, 4);
  for (const std::vector<std::int32_t>& first_key : {std::vector<std::int32_t>{}, window}) {
    const AttentionGradient gradient = attention_backward(shape, dy, q, k, v, first_key);
    expect_gradient([&](const Doubles& z) { return attention(shape, z, k, v, first_key).y; }, q, dy,
                    gradient.dq);
    expect_gradient([&](const Doubles& z) { return attention(shape, q, z, v, first_key).y; }, k, dy,
                    gradient.dk);
    expect_gradient([&](const Doubles& z) { return attention(shape, q, k, z, first_key).y; }, v, dy,
                    gradient.dv);
  }
}

TEST(OpsGradient, OfAttentionWithDropout) {
  AttentionShape shape = {
      .sequences = 2, .tokens = 9, .heads = 4, .kv_heads = 2, .head_size = 3, .scale = 0.7f};
  shape.dropout = {.rate = 0.3f, .key = 9, .first_row = 18};
  const Doubles q = normal_values(18 * 12, 1), k = normal_values(18 * 6, 2);
  const Doubles v = normal_values(18 * 6, 3), dy = normal_values(18 * 12, 4);
  const AttentionGradient gradient = attention_backward(shape, dy, q, k, v, {});
  expect_gradient([&](const Doubles& z) { return attention(shape, z, k, v, {}).y; }, q, dy,
                  gradient.dq);
  expect_gradient([&](const Doubles& z) { return attention(shape, q, z, v, {}).y; }, k, dy,
                  gradient.dk);
  expect_gradient([&](const Doubles& z) { return attention(shape, q, k, z, {}).y; }, v, dy,
                  gradient.dv);
}

TEST(OpsGradient, OfActivationsAlsoWhenGated) {
  const Doubles x = normal_values(40, 1, 2.0), up = normal_values(40, 2);
  const Doubles dy = normal_values(40, 3);
  for (const Activation f : {Activation::kGeluNew, Activation::kSilu, Activation::kRelu}) {
    const auto gated = [&](const Doubles& gate, const Doubles& factor) {
      Doubles y = gate;
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = activation(f, gate[i]) * factor[i];
      return y;
    };
    Doubles dgate = dy, dup = dy;
    for (std::size_t i = 0; i < dy.size(); ++i) {
      dgate[i] *= up[i] * activation_slope(f, x[i]);
      dup[i] *= activation(f, x[i]);
    }
    expect_gradient([&](const Doubles& v) { return gated(v, up); }, x, dy, dgate);
    expect_gradient([&](const Doubles& v) { return gated(x, v); }, up, dy, dup);
  }
}

TEST(OpsGradient, OfCrossEntropyWithUncountedLabels) {
  const std::vector<std::int32_t> labels = {3, -100, 0, 6};
  const Doubles logits = normal_values(4 * 7, 1, 2.0);
  expect_gradient([&](const Doubles& v) { return cross_entropy(v, labels); }, logits,
                  Doubles(4, 0.3), cross_entropy_backward(logits, labels, 0.3));
}

}  // namespace
}  // namespace strata::test
