#include "core/text/bigram.h"

#include <cmath>

namespace strata {
namespace {

std::uint64_t pair_key(std::int32_t a, std::int32_t b) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 |
         static_cast<std::uint32_t>(b);
}

}  // namespace

BigramModel::BigramModel(std::span<const std::int32_t> train, std::int64_t vocab_size)
    : vocab_size_(vocab_size) {
  for (std::size_t i = 1; i < train.size(); ++i) {
    ++pairs_[pair_key(train[i - 1], train[i])];
    ++singles_[train[i - 1]];
  }
}

double BigramModel::loss(std::span<const std::int32_t> text, double smoothing) const {
  if (text.size() < 2) return 0.0;
  const auto count = [](const auto& counts, auto key) {
    const auto found = counts.find(key);
    return static_cast<double>(found == counts.end() ? 0 : found->second);
  };
  double sum = 0.0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const double both = count(pairs_, pair_key(text[i - 1], text[i]));
    const double first = count(singles_, text[i - 1]);
    sum -= std::log((both + smoothing) / (first + smoothing * static_cast<double>(vocab_size_)));
  }
  return sum / static_cast<double>(text.size() - 1);
}

}  // namespace strata
