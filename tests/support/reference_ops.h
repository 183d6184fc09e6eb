#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/ops.h"

// The obvious formulas of core/ops.h in double, one loop per index, forward and backward. Tensors
// are row-major vectors; letters as in core/ops.h. Nothing is rounded on the way.

namespace strata::test {

using Doubles = std::vector<double>;
using Numbers = std::span<const double>;
using Integers = std::span<const std::int32_t>;

Doubles linear(Numbers x, Numbers w, Numbers bias, std::int64_t rows, std::int64_t in,
               std::int64_t out);
Doubles linear_backward_input(Numbers dy, Numbers w, std::int64_t rows, std::int64_t in,
                              std::int64_t out);
Doubles linear_backward_weight(Numbers dy, Numbers x, std::int64_t rows, std::int64_t in,
                               std::int64_t out);
/// Sum over rows: the gradient of a bias.
Doubles column_sums(Numbers dy, std::int64_t columns);
/// Every element without its sign: with it a product gives sum |a| |b|, which scales its rounding
/// error.
Doubles absolute(Numbers x);

Doubles embedding(Integers ids, Numbers table, std::int64_t features);
Doubles embedding_backward(Integers ids, Numbers dy, std::int64_t features, std::int64_t row_begin,
                           std::int64_t row_count);

struct Norm {
  Doubles y;
  Doubles mean;
  Doubles rstd;
};
struct NormGradient {
  Doubles dx;
  Doubles dw;
  Doubles db;
};
Norm rms_norm(Numbers x, Numbers w, double eps);
NormGradient rms_norm_backward(Numbers dy, Numbers x, Numbers w, double eps);
Norm layer_norm(Numbers x, Numbers w, Numbers b, double eps);
NormGradient layer_norm_backward(Numbers dy, Numbers x, Numbers w, double eps);

/// Angles are rounded to fp32, as the contract says; their cosines and sines are not.
Doubles rotary(Numbers x, std::int64_t features, Integers positions,
               std::span<const float> inverse_frequency, double magnitude, bool inverse);

/// What each element of a matrix of `columns` columns is multiplied by.
Doubles dropout_factors(std::int64_t rows, std::int64_t columns, const Dropout& dropout);

struct Attention {
  Doubles y;
  Doubles log_sum;
  double largest_score = 0.0;  ///< the largest scale sum |q| |k|
  Doubles y_magnitude;         ///< sum p |v|
};
struct AttentionGradient {
  Doubles dq, dk, dv;
  /// The same sums with every term without its sign: they scale the rounding errors.
  Doubles dq_magnitude, dk_magnitude, dv_magnitude;
};
Attention attention(const AttentionShape& shape, Numbers q, Numbers k, Numbers v,
                    Integers first_key);
AttentionGradient attention_backward(const AttentionShape& shape, Numbers dy, Numbers q, Numbers k,
                                     Numbers v, Integers first_key);

double activation(Activation f, double x);
double activation_slope(Activation f, double x);

/// loss[T] of logits[T, V].
Doubles cross_entropy(Numbers logits, Integers labels);
Doubles cross_entropy_backward(Numbers logits, Integers labels, double scale);

}  // namespace strata::test
