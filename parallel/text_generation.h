#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/sampler.h"
#include "parallel/context.h"
#include "parallel/generator.h"

namespace strata {

enum class FinishReason : std::uint8_t {
  kStop,    ///< a stop id was chosen, or on_token asked for the end
  kLength,  ///< max_new_tokens, or the end of the model's positions
  kError,   ///< the request could not be served; GenerationResult::error says why
};

/// How a model takes a token that it is shown.
struct ScoredToken {
  float log_probability = 0;  ///< the logarithm of softmax(logits)[token]
  bool likeliest = false;     ///< whether greedy sampling would choose it
};

struct GenerationResult {
  FinishReason reason = FinishReason::kLength;
  std::string error = {};                     ///< of kError: what is wrong, and the remedy
  std::vector<std::int32_t> ids = {};         ///< generated, without the stop id that ended them
  std::vector<float> log_probabilities = {};  ///< of `ids`, where sampling asks for them
  /// Of the prompt's tokens from GenerationRequest::score_from on.
  std::vector<ScoredToken> scores = {};
  double seconds_to_first_token = 0;  ///< since the request was taken
  double seconds = 0;                 ///< since the request was taken
};

/// One text to continue.
struct GenerationRequest {
  std::vector<std::int32_t> prompt = {};
  std::int64_t max_new_tokens = 1;  ///< 0: the prompt is only scored
  /// The first token of the prompt that is scored, 1 or more; none: no token is.
  std::optional<std::int64_t> score_from = {};
  SamplingOptions sampling = {};
  std::vector<std::int32_t> stop_ids = {};
  std::uint64_t stream = 0;  ///< names the text to chance: the number of its row
  /// Called with each token, stop ids left out, in order. True: the text ends with it (stop
  /// strings).
  std::function<bool(const SampledToken&)> on_token = {};
  std::function<void(GenerationResult)> on_finish = {};
};

struct TextGenerationOptions {
  std::int64_t max_sequences = 256;  ///< in flight on a rank at most
  /// Of a text, its prompt too; 0: what the model's table of positions has, or any number.
  std::int64_t max_tokens = 0;
  std::vector<std::int32_t> unknown = {};  ///< ids never chosen, ascending: no tokens
  /// Tokens proposed for a text in a pass at most; 0: none. What followed when a text had its last
  /// tokens before is computed behind them; of it, what would have been chosen anyway is accepted,
  /// so that a pass may give a text several tokens.
  std::int64_t speculate = 0;
  /// Rows up to which a pass is filled with proposals: those that cost no time while the weights
  /// come. 0: all that it may have.
  std::int64_t speculate_rows = 0;
};

/// How far a run has come, on this rank.
struct GenerationProgress {
  std::int64_t finished = 0;       ///< requests
  std::int64_t in_flight = 0;      ///< sequences that have pages
  std::int64_t waiting = 0;        ///< taken, without pages
  std::int64_t prompt_tokens = 0;  ///< computed, those of preempted sequences again
  std::int64_t tokens = 0;         ///< generated
  std::int64_t passes = 0;
  std::int64_t shared_tokens = 0;  ///< of prompts: found computed, by another text
  std::int64_t read_tokens = 0;    ///< of these: their keys and values came from a drive
  std::int64_t preempted = 0;
  std::int64_t swapped = 0;   ///< of these: their keys and values waited on a drive
  std::int64_t proposed = 0;  ///< tokens, by speculation
  std::int64_t accepted = 0;  ///< of these: among `tokens`
};

/// Continues many texts at once, in passes that each stream the weights once: prompts in pieces
/// beside the next tokens of others, without padding. A text that ends makes room for the next; a
/// text that finds no page for its next token gives its pages back and is computed again later, or
/// read back from where they wait (KvSwap; the youngest first). Texts that begin alike share the
/// full pages of their beginning, also with texts that are finished, whose pages stay as long as
/// there is room, then wait on a drive (KvSwap) as long as there is room there. What is generated
/// does not depend on what else is in flight nor on proposals, beyond the rounding of products
/// (none of it on a batch-invariant device).
class TextGeneration {
 public:
  /// @param generator borrowed, outlives this
  TextGeneration(const Context& context, Generator& generator,
                 const TextGenerationOptions& options);
  ~TextGeneration();
  TextGeneration(const TextGeneration&) = delete;
  TextGeneration& operator=(const TextGeneration&) = delete;

  /// The next request of this rank; none: there is no more.
  using Source = std::function<std::optional<GenerationRequest>()>;

  /// Serves requests until every rank's source is exhausted and every text is finished. Requests
  /// are taken as there is room for them. Collective; ranks that run out of work go on with empty
  /// passes. Requests that cannot be served (no token, an id that is not in the vocabulary, longer
  /// than the model's positions or than all pages hold) finish with kError. Callbacks are called on
  /// the caller's thread.
  /// @param after_pass called after every pass
  void run(const Source& next,
           const std::function<void(const GenerationProgress&)>& after_pass = {});

 private:
  struct Text;
  struct Picked;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace strata
