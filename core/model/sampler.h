#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace strata {

/// How the next token is chosen. The filters apply in the order of the fields, as in transformers'
/// `generate`: each sees what the one before it has left.
struct SamplingOptions {
  bool greedy = true;  ///< the likeliest token; only the penalty counts
  /// Logits of ids that the text holds are divided by it where positive, else multiplied.
  float repetition_penalty = 1.0f;
  float temperature = 1.0f;  ///< logits are divided by it; above 0
  std::int64_t top_k = 0;    ///< the likeliest so many; 0: all
  float top_p = 1.0f;        ///< the likeliest that together have this probability
  float min_p = 0.0f;        ///< those at least so likely as this share of the likeliest
  std::uint64_t seed = 0;
  bool log_probability = false;  ///< whether SampledToken has it
};

/// @throws UsageError naming an option that is out of range
void check(const SamplingOptions& options);

struct TokenProbability {
  std::int32_t id = 0;
  float probability = 0;
};

/// A chosen token.
struct SampledToken {
  std::int32_t id = 0;
  /// Of the model, before any filter: the logarithm of softmax(logits)[id]; 0 where it was not
  /// asked for.
  float log_probability = 0;
};

/// The logarithm of softmax(logits)[id].
float log_probability(std::span<const float> logits, std::int32_t id);

/// Chooses tokens from logits. Holds scratch memory: one thread at a time.
class Sampler {
 public:
  /// @param unknown ids that are never chosen, ascending: those the tokenizer does not have
  Sampler(const SamplingOptions& options, std::span<const std::int32_t> unknown);

  /// The next token of a text.
  /// @param logits fp32, one per id; changed
  /// @param text its ids so far, the prompt included
  /// @param stream names the text, @param position the place of the token in it: with the seed they
  /// are all that chance depends on
  SampledToken next(std::span<float> logits, std::span<const std::int32_t> text,
                    std::uint64_t stream, std::uint64_t position);

  /// What the filters leave, the likeliest first (ties: the lower id). Probabilities sum to 1.
  /// Changes logits.
  std::span<const TokenProbability> distribution(std::span<float> logits,
                                                 std::span<const std::int32_t> text);

 private:
  std::int32_t choose(std::span<float> logits, std::span<const std::int32_t> text,
                      std::uint64_t stream, std::uint64_t position);
  void penalise(std::span<float> logits, std::span<const std::int32_t> text);

  SamplingOptions options_;
  std::vector<std::int32_t> unknown_;
  std::vector<std::int32_t> seen_;
  std::vector<float> before_;  // logits
  std::vector<TokenProbability> candidates_;
};

}  // namespace strata
