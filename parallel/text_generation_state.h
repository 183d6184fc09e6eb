#pragma once

// Internal to text_generation.cpp, which chooses tokens, and text_scheduling.cpp, which decides
// what a pass computes. Not installed.

#include <chrono>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/ngram_lookup.h"
#include "parallel/prefix_index.h"
#include "parallel/stored_prefixes.h"
#include "parallel/text_generation.h"

namespace strata {

/// A text in flight, or waiting for pages.
struct TextGeneration::Text {
  Text(GenerationRequest given, std::span<const std::int32_t> unknown)
      : request(std::move(given)), tokens(request.prompt), sampler(request.sampling, unknown) {}

  GenerationRequest request;
  std::vector<std::int32_t> tokens;  // of the prompt, then generated
  Sampler sampler;
  GenerationResult result;
  std::chrono::steady_clock::time_point taken = std::chrono::steady_clock::now();
  KvCache::Id id = -1;               // while it has pages
  std::vector<std::int32_t> stored;  // while it waits: slots of what lay in its pages
  std::int64_t computed = 0;         // tokens whose keys and values lie in either
  std::int64_t rows = 0;             // of the pass under way, beside those of proposals
  NgramLookup lookup;
  std::vector<std::int32_t> proposed;  // in the pass under way: what may follow `tokens`
  std::int64_t accepted = 0;           // of these: by now in `tokens`
  bool done = false;

  bool scored(std::int64_t token) const {
    return request.score_from && token >= *request.score_from &&
           token < static_cast<std::int64_t>(request.prompt.size());
  }
  std::int64_t missing() const { return static_cast<std::int64_t>(tokens.size()) - computed; }
  std::int64_t proposals() const { return static_cast<std::int64_t>(proposed.size()); }
  std::int64_t generated() const { return static_cast<std::int64_t>(result.ids.size()); }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - taken).count();
  }
};

/// A row whose logits are wanted: what it says of the token after `position`.
struct TextGeneration::Picked {
  Text* text = nullptr;
  std::int64_t position = 0;
};

struct TextGeneration::State {
  State(const Context& given, Generator& used, const TextGenerationOptions& wanted);

  Context context;
  Generator& generator;
  TextGenerationOptions options;
  std::int64_t window;
  std::int64_t most_tokens;
  GenerationProgress progress;
  std::deque<std::unique_ptr<Text>> waiting;   // taken; those that were preempted come first
  std::vector<std::unique_ptr<Text>> running;  // the oldest first
  std::deque<KvCache::Id> kept;                // of finished texts, the oldest first
  PrefixIndex prefixes;
  std::optional<StoredPrefixes> stored_prefixes;  // where there is a KvSwap

  void admit(const Source& next, bool& exhausted);
  bool place(Text& text);
  bool place_stored(Text& text);
  void read_prefix(Text& text, std::int64_t most);
  bool grow(Text& text, std::int64_t tokens);
  bool free_pages(const Text& wants, std::int64_t tokens);
  void preempt_youngest();
  PassRows plan_pass(std::vector<Picked>& picked);
  void propose(std::int64_t rows);
  void take(const Picked& picked, std::span<float> logits);
  void choose(Text& text, std::int64_t position, std::span<float> logits);
  void count_computed(Text& text);
  void after_pass();
  void finish(Text& text, FinishReason reason, std::string error = {});
  std::string refusal(const GenerationRequest& request) const;
  /// Pages that a text of so many tokens holds at most at a time.
  std::int64_t pages_of(std::int64_t tokens) const {
    const std::int64_t seen = window + generator.plan().rows + 2 * kPageTokens;
    return pages_for(window > 0 ? std::min(tokens, seen) : tokens);
  }
  KvCache& cache() { return generator.cache(); }
};

}  // namespace strata
