#include "core/model/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/random.h"

namespace strata {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

bool likelier(const TokenProbability& a, const TokenProbability& b) {
  return a.probability > b.probability || (a.probability == b.probability && a.id < b.id);
}

/// log of the sum of e^logit, in double.
double log_of_sum(std::span<const float> logits) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  return static_cast<double>(largest) + std::log(sum);
}

void rescale(std::vector<TokenProbability>& candidates) {
  double sum = 0;
  for (const TokenProbability& candidate : candidates) {
    sum += static_cast<double>(candidate.probability);
  }
  const auto factor = static_cast<float>(1.0 / sum);
  for (TokenProbability& candidate : candidates) candidate.probability *= factor;
}

/// What were logits become probabilities that sum to 1. The first is the largest.
void exponentiate(std::vector<TokenProbability>& candidates) {
  const float largest = candidates.front().probability;
  for (TokenProbability& candidate : candidates) {
    candidate.probability = std::exp(candidate.probability - largest);
  }
  rescale(candidates);
}

/// Drops the least likely tokens while all that are dropped have no more than 1 - top_p together.
void keep_top_p(std::vector<TokenProbability>& candidates, float top_p) {
  double dropped = 0;
  while (candidates.size() > 1) {
    dropped += static_cast<double>(candidates.back().probability);
    if (dropped > 1.0 - static_cast<double>(top_p)) break;
    candidates.pop_back();
  }
  rescale(candidates);
}

void keep_min_p(std::vector<TokenProbability>& candidates, float min_p) {
  const float least = min_p * candidates.front().probability;
  std::erase_if(candidates, [least](const TokenProbability& c) { return c.probability < least; });
  rescale(candidates);
}

void expect_range(bool holds, const char* option, double value, const char* range) {
  if (!holds) throw UsageError(fmt::format("{} is {}; it must be {}", option, value, range));
}

}  // namespace

void check(const SamplingOptions& options) {
  const auto positive = [](float value) { return std::isfinite(value) && value > 0; };
  expect_range(positive(options.repetition_penalty), "repetition_penalty",
               static_cast<double>(options.repetition_penalty), "above 0");
  expect_range(options.greedy || positive(options.temperature), "temperature",
               static_cast<double>(options.temperature), "above 0; choose greedily for 0");
  expect_range(options.top_k >= 0, "top_k", static_cast<double>(options.top_k), "0 or more");
  expect_range(options.top_p > 0 && options.top_p <= 1, "top_p", static_cast<double>(options.top_p),
               "above 0 and at most 1");
  expect_range(options.min_p >= 0 && options.min_p <= 1, "min_p",
               static_cast<double>(options.min_p), "between 0 and 1");
}

float log_probability(std::span<const float> logits, std::int32_t id) {
  const auto logit = static_cast<double>(logits[static_cast<std::size_t>(id)]);
  return static_cast<float>(logit - log_of_sum(logits));
}

Sampler::Sampler(const SamplingOptions& options, std::span<const std::int32_t> unknown)
    : options_(options), unknown_(unknown.begin(), unknown.end()) {
  check(options);
}

void Sampler::penalise(std::span<float> logits, std::span<const std::int32_t> text) {
  for (const std::int32_t id : unknown_) {
    if (static_cast<std::size_t>(id) < logits.size()) logits[static_cast<std::size_t>(id)] = kNever;
  }
  if (options_.repetition_penalty == 1.0f) return;
  seen_.assign(text.begin(), text.end());
  std::ranges::sort(seen_);
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
  for (const std::int32_t id : seen_) {
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }
}

std::span<const TokenProbability> Sampler::distribution(std::span<float> logits,
                                                        std::span<const std::int32_t> text) {
  penalise(logits, text);
  const float inverse = 1.0f / options_.temperature;
  candidates_.clear();
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kNever) continue;
    candidates_.push_back({static_cast<std::int32_t>(id), logits[id] * inverse});
  }
  expects(!candidates_.empty(), "the tokenizer knows none of the ids that there are logits for");
  if (options_.top_k > 0 && options_.top_k < static_cast<std::int64_t>(candidates_.size())) {
    const auto end = candidates_.begin() + options_.top_k;
    std::nth_element(candidates_.begin(), end, candidates_.end(), likelier);
    candidates_.erase(end, candidates_.end());
  }
  std::ranges::sort(candidates_, likelier);
  exponentiate(candidates_);
  if (options_.top_p < 1.0f) keep_top_p(candidates_, options_.top_p);
  if (options_.min_p > 0.0f) keep_min_p(candidates_, options_.min_p);
  return candidates_;
}

std::int32_t Sampler::choose(std::span<float> logits, std::span<const std::int32_t> text,
                             std::uint64_t stream, std::uint64_t position) {
  if (options_.greedy) {
    penalise(logits, text);
    return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
  }
  const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
  const auto bits = philox({low(stream), low(stream >> 32), low(position), low(position >> 32)},
                           random_key(options_.seed, "sampler"));
  const std::uint64_t word = static_cast<std::uint64_t>(bits[0]) << 32 | bits[1];
  const double chance = static_cast<double>(word >> 11) * 0x1p-53;  // in [0, 1)
  const std::span<const TokenProbability> left = distribution(logits, text);
  double below = 0;
  for (const TokenProbability& candidate : left) {
    below += static_cast<double>(candidate.probability);
    if (chance < below) return candidate.id;
  }
  return left.back().id;  // rounding left the sum below 1
}

SampledToken Sampler::next(std::span<float> logits, std::span<const std::int32_t> text,
                           std::uint64_t stream, std::uint64_t position) {
  if (!options_.log_probability) return {choose(logits, text, stream, position), 0};
  before_.assign(logits.begin(), logits.end());
  const std::int32_t id = choose(logits, text, stream, position);
  return {id, log_probability(before_, id)};
}

}  // namespace strata
