#include "tests/support/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/random.h"

namespace strata::test {
namespace {

std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }
std::int64_t size(Numbers x) { return static_cast<std::int64_t>(x.size()); }

struct RowMoments {
  double mean;
  double mean_square;
  double variance;
};

RowMoments moments(Numbers row) {
  RowMoments result{};
  const auto n = static_cast<double>(row.size());
  for (const double x : row) result.mean += x / n;
  for (const double x : row) result.mean_square += x * x / n;
  for (const double x : row) result.variance += (x - result.mean) * (x - result.mean) / n;
  return result;
}

/// What all normalisations share once a row is normalised: n = normalised row, r = 1/deviation.
void norm_row_backward(Numbers dy, Numbers n, Numbers w, double r, bool centered, NormGradient& to,
                       std::size_t row_begin) {
  const auto count = static_cast<double>(n.size());
  double mean = 0.0;
  double mean_product = 0.0;
  for (std::size_t i = 0; i < n.size(); ++i) {
    mean += dy[i] * w[i] / count;
    mean_product += dy[i] * w[i] * n[i] / count;
  }
  for (std::size_t i = 0; i < n.size(); ++i) {
    const double g = dy[i] * w[i];
    to.dx[row_begin + i] = r * (g - (centered ? mean : 0.0) - n[i] * mean_product);
    to.dw[i] += dy[i] * n[i];
    to.db[i] += dy[i];
  }
}

}  // namespace

Doubles linear(Numbers x, Numbers w, Numbers bias, std::int64_t rows, std::int64_t in,
               std::int64_t out) {
  Doubles y(index(rows * out));
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t n = 0; n < out; ++n) {
      double sum = bias.empty() ? 0.0 : bias[index(n)];
      for (std::int64_t k = 0; k < in; ++k) sum += x[index(t * in + k)] * w[index(n * in + k)];
      y[index(t * out + n)] = sum;
    }
  }
  return y;
}

Doubles linear_backward_input(Numbers dy, Numbers w, std::int64_t rows, std::int64_t in,
                              std::int64_t out) {
  Doubles dx(index(rows * in));
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t n = 0; n < out; ++n) {
      for (std::int64_t k = 0; k < in; ++k) {
        dx[index(t * in + k)] += dy[index(t * out + n)] * w[index(n * in + k)];
      }
    }
  }
  return dx;
}

Doubles linear_backward_weight(Numbers dy, Numbers x, std::int64_t rows, std::int64_t in,
                               std::int64_t out) {
  Doubles dw(index(out * in));
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t n = 0; n < out; ++n) {
      for (std::int64_t k = 0; k < in; ++k) {
        dw[index(n * in + k)] += dy[index(t * out + n)] * x[index(t * in + k)];
      }
    }
  }
  return dw;
}

Doubles column_sums(Numbers dy, std::int64_t columns) {
  Doubles sums(index(columns));
  for (std::size_t i = 0; i < dy.size(); ++i) sums[i % index(columns)] += dy[i];
  return sums;
}

Doubles absolute(Numbers x) {
  Doubles result(x.begin(), x.end());
  for (double& value : result) value = std::abs(value);
  return result;
}

Doubles embedding(Integers ids, Numbers table, std::int64_t features) {
  Doubles y;
  for (const std::int32_t id : ids) {
    const Numbers row = table.subspan(index(id * features), index(features));
    y.insert(y.end(), row.begin(), row.end());
  }
  return y;
}

Doubles embedding_backward(Integers ids, Numbers dy, std::int64_t features, std::int64_t row_begin,
                           std::int64_t row_count) {
  Doubles dtable(index(row_count * features));
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const std::int64_t row = ids[t] - row_begin;
    if (row < 0 || row >= row_count) continue;
    for (std::int64_t c = 0; c < features; ++c) {
      dtable[index(row * features + c)] += dy[t * index(features) + index(c)];
    }
  }
  return dtable;
}

Norm rms_norm(Numbers x, Numbers w, double eps) {
  Norm result{Doubles(x.size()), {}, {}};
  for (std::size_t begin = 0; begin < x.size(); begin += w.size()) {
    const double r = 1.0 / std::sqrt(moments(x.subspan(begin, w.size())).mean_square + eps);
    result.rstd.push_back(r);
    for (std::size_t c = 0; c < w.size(); ++c) result.y[begin + c] = x[begin + c] * r * w[c];
  }
  return result;
}

NormGradient rms_norm_backward(Numbers dy, Numbers x, Numbers w, double eps) {
  NormGradient result{Doubles(x.size()), Doubles(w.size()), Doubles(w.size())};
  for (std::size_t begin = 0; begin < x.size(); begin += w.size()) {
    const Numbers row = x.subspan(begin, w.size());
    const double r = 1.0 / std::sqrt(moments(row).mean_square + eps);
    Doubles normalised(row.begin(), row.end());
    for (double& value : normalised) value *= r;
    norm_row_backward(dy.subspan(begin, w.size()), normalised, w, r, false, result, begin);
  }
  return result;
}

Norm layer_norm(Numbers x, Numbers w, Numbers b, double eps) {
  Norm result{Doubles(x.size()), {}, {}};
  for (std::size_t begin = 0; begin < x.size(); begin += w.size()) {
    const RowMoments row = moments(x.subspan(begin, w.size()));
    const double r = 1.0 / std::sqrt(row.variance + eps);
    result.mean.push_back(row.mean);
    result.rstd.push_back(r);
    for (std::size_t c = 0; c < w.size(); ++c) {
      result.y[begin + c] = (x[begin + c] - row.mean) * r * w[c] + b[c];
    }
  }
  return result;
}

NormGradient layer_norm_backward(Numbers dy, Numbers x, Numbers w, double eps) {
  NormGradient result{Doubles(x.size()), Doubles(w.size()), Doubles(w.size())};
  for (std::size_t begin = 0; begin < x.size(); begin += w.size()) {
    const Numbers row = x.subspan(begin, w.size());
    const RowMoments row_moments = moments(row);
    const double r = 1.0 / std::sqrt(row_moments.variance + eps);
    Doubles normalised(row.begin(), row.end());
    for (double& value : normalised) value = (value - row_moments.mean) * r;
    norm_row_backward(dy.subspan(begin, w.size()), normalised, w, r, true, result, begin);
  }
  return result;
}

Doubles rotary(Numbers x, std::int64_t features, Integers positions,
               std::span<const float> inverse_frequency, double magnitude, bool inverse) {
  Doubles y(x.begin(), x.end());
  const auto half = static_cast<std::int64_t>(inverse_frequency.size());
  for (std::int64_t i = 0; i < size(x); ++i) {
    const std::int64_t token = i / features;
    const std::int64_t within = i % features % (2 * half);
    const float angle =
        static_cast<float>(positions[index(token)]) * inverse_frequency[index(within % half)];
    const double cosine = magnitude * std::cos(static_cast<double>(angle));
    const double sine = magnitude * std::sin(static_cast<double>(angle)) * (inverse ? -1.0 : 1.0);
    const bool upper = within >= half;
    const double partner = x[index(upper ? i - half : i + half)];
    y[index(i)] = x[index(i)] * cosine + (upper ? partner : -partner) * sine;
  }
  return y;
}

Doubles dropout_factors(std::int64_t rows, std::int64_t columns, const Dropout& dropout) {
  const auto rate = static_cast<double>(dropout.rate);
  Doubles factors;
  for (std::int64_t row = 0; row < rows; ++row) {
    const RandomRow random =
        random_row(dropout.key, static_cast<std::uint64_t>(dropout.first_row + row));
    for (std::int64_t column = 0; column < columns; ++column) {
      const std::uint32_t word = random_word(random, static_cast<std::uint32_t>(column));
      factors.push_back(word < std::floor(rate * 0x1p32) ? 0.0 : 1.0 / (1.0 - rate));
    }
  }
  return factors;
}

double activation(Activation f, double x) {
  const double u = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  switch (f) {
    case Activation::kGeluNew:
      return 0.5 * x * (1.0 + std::tanh(u));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return 0.0;
}

double activation_slope(Activation f, double x) {
  const double root = std::sqrt(2.0 / std::numbers::pi);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  const double s = 1.0 / (1.0 + std::exp(-x));
  switch (f) {
    case Activation::kGeluNew:
      return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044715 * x * x);
    case Activation::kSilu:
      return s * (1.0 + x * (1.0 - s));
    case Activation::kRelu:
      return x > 0.0 ? 1.0 : 0.0;
  }
  return 0.0;
}

Doubles cross_entropy(Numbers logits, Integers labels) {
  Doubles loss(labels.size());
  if (labels.empty()) return loss;
  const std::size_t vocabulary = logits.size() / labels.size();
  for (std::size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] < 0) continue;
    const Numbers row = logits.subspan(t * vocabulary, vocabulary);
    const double maximum = *std::ranges::max_element(row);
    double sum = 0.0;
    for (const double logit : row) sum += std::exp(logit - maximum);
    loss[t] = maximum + std::log(sum) - row[index(labels[t])];
  }
  return loss;
}

Doubles cross_entropy_backward(Numbers logits, Integers labels, double scale) {
  Doubles gradient(logits.size());
  if (labels.empty()) return gradient;
  const std::size_t vocabulary = logits.size() / labels.size();
  for (std::size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] < 0) continue;
    const Numbers row = logits.subspan(t * vocabulary, vocabulary);
    const double maximum = *std::ranges::max_element(row);
    double sum = 0.0;
    for (const double logit : row) sum += std::exp(logit - maximum);
    for (std::size_t v = 0; v < vocabulary; ++v) {
      const double onehot = v == index(labels[t]) ? 1.0 : 0.0;
      gradient[t * vocabulary + v] = scale * (std::exp(row[v] - maximum) / sum - onehot);
    }
  }
  return gradient;
}

}  // namespace strata::test
