#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

namespace strata {

/// The bigram model of a text: what a model must beat to have learned more than pairs of tokens.
class BigramModel {
 public:
  BigramModel(std::span<const std::int32_t> train, std::int64_t vocab_size);

  /// Mean cross-entropy in nats per token on `text`. `smoothing` is added to the count of every
  /// pair; with 0 and the training text it is the entropy of a token given the one before it. 0 for
  /// fewer than two tokens.
  double loss(std::span<const std::int32_t> text, double smoothing = 1.0) const;

 private:
  std::int64_t vocab_size_;
  std::unordered_map<std::uint64_t, std::int64_t> pairs_;
  std::unordered_map<std::int32_t, std::int64_t> singles_;
};

}  // namespace strata
