#include "swap/stripe_map.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::uint64_t kMaxRound = 64;

/// Whole numbers in proportion to the weights, at least 1 each: of all rounds up to kMaxRound
/// stripes the one that comes closest, the shortest of equals.
std::vector<std::uint64_t> whole_shares(std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::uint64_t> best;
  double best_error = HUGE_VAL;
  for (std::uint64_t round = weights.size(); round <= std::max(kMaxRound, weights.size());
       ++round) {
    std::vector<std::uint64_t> shares;
    double error = 0;
    for (const double weight : weights) {
      const double wanted = weight / sum;
      shares.push_back(static_cast<std::uint64_t>(
          std::max(1.0, std::round(wanted * static_cast<double>(round)))));
    }
    const auto total =
        static_cast<double>(std::accumulate(shares.begin(), shares.end(), std::uint64_t{0}));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      // The slowest drive for its share sets the pace.
      const double wanted = weights[i] / sum;
      error = std::max(error, static_cast<double>(shares[i]) / total / wanted - 1);
    }
    if (error < best_error - 1e-9) {
      best_error = error;
      best = shares;
    }
  }
  return best;
}

}  // namespace

StripeMap::StripeMap(std::span<const double> weights) {
  for (const double weight : weights) {
    if (!(weight > 0) || !std::isfinite(weight)) {
      throw UsageError("the weight of a swap directory must be a positive number");
    }
  }
  expects(!weights.empty(), "a striped space needs at least one file");
  shares_ = whole_shares(weights);
  // Smooth round robin: in each stripe the file that is furthest behind its share is next.
  const std::uint64_t round = std::accumulate(shares_.begin(), shares_.end(), std::uint64_t{0});
  std::vector<std::int64_t> credit(shares_.size(), 0);
  std::vector<std::uint64_t> dealt(shares_.size(), 0);
  for (std::uint64_t stripe = 0; stripe < round; ++stripe) {
    for (std::size_t i = 0; i < credit.size(); ++i) {
      credit[i] += static_cast<std::int64_t>(shares_[i]);
    }
    const auto next =
        static_cast<std::size_t>(std::max_element(credit.begin(), credit.end()) - credit.begin());
    credit[next] -= static_cast<std::int64_t>(round);
    pattern_.push_back(next);
    ordinal_.push_back(dealt[next]++);
  }
}

std::vector<StripeRun> StripeMap::map(std::uint64_t offset, std::uint64_t bytes) const {
  std::vector<StripeRun> runs;
  while (bytes > 0) {
    const std::uint64_t stripe = offset / kStripeBytes;
    const std::uint64_t inside = offset % kStripeBytes;
    const std::size_t position = stripe % pattern_.size();
    const std::size_t file = pattern_[position];
    const std::uint64_t ordinal = stripe / pattern_.size() * shares_[file] + ordinal_[position];
    const StripeRun run{file, ordinal * kStripeBytes + inside,
                        std::min(bytes, kStripeBytes - inside)};
    if (!runs.empty() && runs.back().file == file &&
        runs.back().offset + runs.back().bytes == run.offset) {
      runs.back().bytes += run.bytes;
    } else {
      runs.push_back(run);
    }
    offset += run.bytes;
    bytes -= run.bytes;
  }
  return runs;
}

std::uint64_t StripeMap::file_bytes(std::size_t file, std::uint64_t bytes) const {
  const std::uint64_t stripes = bytes / kStripeBytes;
  std::uint64_t total = stripes / pattern_.size() * shares_[file];
  for (std::size_t position = 0; position < stripes % pattern_.size(); ++position) {
    total += pattern_[position] == file ? 1 : 0;
  }
  const bool holds_tail = pattern_[stripes % pattern_.size()] == file;
  return total * kStripeBytes + (holds_tail ? bytes % kStripeBytes : 0);
}

}  // namespace strata
