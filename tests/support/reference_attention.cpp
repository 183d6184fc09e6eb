#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/reference_ops.h"

namespace strata::test {
namespace {

std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }

/// One query of one head: the keys it sees and their probabilities.
struct Row {
  std::int64_t query;  // of all tokens
  std::int64_t query_begin;
  std::int64_t first;  // of all tokens; keys [first, query] are seen
  std::int64_t kv_head;
  Doubles probability;
  Doubles kept;  // what dropout multiplies each probability by
  double log_sum = -std::numeric_limits<double>::infinity();
  double largest_score = 0.0;
};

/// Calls body(row, key_begin) for every query of every head, where key_begin(key) is the offset of
/// a key of the row's head in k and v.
template <typename Body>
void for_each_row(const AttentionShape& shape, Numbers q, Numbers k, Integers first_key,
                  const Body& body) {
  const std::int64_t head_size = shape.head_size;
  Dropout dropout = shape.dropout;
  dropout.first_row *= shape.heads;
  const Doubles factors =
      dropout_factors(shape.sequences * shape.tokens * shape.heads, shape.tokens, dropout);
  for (std::int64_t token = 0; token < shape.sequences * shape.tokens; ++token) {
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      const std::int64_t begin = token / shape.tokens * shape.tokens;
      Row row{token, (token * shape.heads + head) * head_size, begin, 0, {}, {}};
      if (!first_key.empty()) row.first = begin + std::max(0, first_key[index(token)]);
      if (shape.window > 0) row.first = std::max(row.first, token - shape.window + 1);
      row.kv_head = head / (shape.heads / shape.kv_heads);
      const auto key_begin = [&shape, kv_head = row.kv_head](std::int64_t key) {
        return (key * shape.kv_heads + kv_head) * shape.head_size;
      };
      double maximum = -std::numeric_limits<double>::infinity();
      for (std::int64_t key = row.first; key <= token; ++key) {
        double score = 0.0;
        double magnitude = 0.0;
        for (std::int64_t d = 0; d < head_size; ++d) {
          const double term = q[index(row.query_begin + d)] * k[index(key_begin(key) + d)];
          score += term;
          magnitude += std::abs(term);
        }
        row.probability.push_back(score * static_cast<double>(shape.scale));
        row.kept.push_back(
            factors[index((token * shape.heads + head) * shape.tokens + key - begin)]);
        row.largest_score =
            std::max(row.largest_score, magnitude * std::abs(static_cast<double>(shape.scale)));
        maximum = std::max(maximum, row.probability.back());
      }
      double sum = 0.0;
      for (double& p : row.probability) sum += p = std::exp(p - maximum);
      for (double& p : row.probability) p /= sum;
      if (sum > 0.0) row.log_sum = maximum + std::log(sum);
      body(row, key_begin);
    }
  }
}

double product(Numbers a, std::int64_t a_begin, Numbers b, std::int64_t b_begin, std::int64_t n,
               bool magnitude) {
  double sum = 0.0;
  for (std::int64_t d = 0; d < n; ++d) {
    const double term = a[index(a_begin + d)] * b[index(b_begin + d)];
    sum += magnitude ? std::abs(term) : term;
  }
  return sum;
}

}  // namespace

Attention attention(const AttentionShape& shape, Numbers q, Numbers k, Numbers v,
                    Integers first_key) {
  Attention result{Doubles(q.size()), {}, 0.0, Doubles(q.size())};
  for_each_row(shape, q, k, first_key, [&](const Row& row, const auto& key_begin) {
    result.log_sum.push_back(row.log_sum);
    result.largest_score = std::max(result.largest_score, row.largest_score);
    for (std::int64_t key = row.first; key <= row.query; ++key) {
      const double p = row.probability[index(key - row.first)] * row.kept[index(key - row.first)];
      for (std::int64_t d = 0; d < shape.head_size; ++d) {
        const double term = p * v[index(key_begin(key) + d)];
        result.y[index(row.query_begin + d)] += term;
        result.y_magnitude[index(row.query_begin + d)] += std::abs(term);
      }
    }
  });
  return result;
}

AttentionGradient attention_backward(const AttentionShape& shape, Numbers dy, Numbers q, Numbers k,
                                     Numbers v, Integers first_key) {
  AttentionGradient result{Doubles(q.size()), Doubles(k.size()), Doubles(v.size()),
                           Doubles(q.size()), Doubles(k.size()), Doubles(v.size())};
  const auto scale = static_cast<double>(shape.scale);
  const std::int64_t n = shape.head_size;
  for_each_row(shape, q, k, first_key, [&](const Row& row, const auto& key_begin) {
    double delta = 0.0;
    double delta_magnitude = 0.0;
    for (std::int64_t key = row.first; key <= row.query; ++key) {
      const double p = row.probability[index(key - row.first)] * row.kept[index(key - row.first)];
      delta += p * product(dy, row.query_begin, v, key_begin(key), n, false);
      delta_magnitude += p * product(dy, row.query_begin, v, key_begin(key), n, true);
    }
    for (std::int64_t key = row.first; key <= row.query; ++key) {
      const double p = row.probability[index(key - row.first)];
      const double kept = row.kept[index(key - row.first)];
      const double slope = kept * product(dy, row.query_begin, v, key_begin(key), n, false);
      const double slope_magnitude =
          kept * product(dy, row.query_begin, v, key_begin(key), n, true);
      const double gradient = scale * p * (slope - delta);
      const double magnitude = std::abs(scale) * p * (slope_magnitude + delta_magnitude);
      for (std::int64_t d = 0; d < n; ++d) {
        const std::size_t at_query = index(row.query_begin + d);
        const std::size_t at_key = index(key_begin(key) + d);
        result.dq[at_query] += gradient * k[at_key];
        result.dk[at_key] += gradient * q[at_query];
        result.dv[at_key] += p * kept * dy[at_query];
        result.dq_magnitude[at_query] += magnitude * std::abs(k[at_key]);
        result.dk_magnitude[at_key] += magnitude * std::abs(q[at_query]);
        result.dv_magnitude[at_key] += p * kept * std::abs(dy[at_query]);
      }
    }
  });
  return result;
}

}  // namespace strata::test
