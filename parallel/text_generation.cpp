#include "parallel/text_generation.h"

#include <algorithm>
#include <utility>

#include "parallel/text_generation_state.h"

namespace strata {

void TextGeneration::State::take(const Picked& picked, std::span<float> logits) {
  Text& text = *picked.text;
  if (!text.scored(picked.position + 1)) return choose(text, picked.position, logits);
  const std::int32_t id = text.tokens[static_cast<std::size_t>(picked.position + 1)];
  const float highest = *std::ranges::max_element(logits);
  text.result.scores.push_back({.log_probability = log_probability(logits, id),
                                .likeliest = logits[static_cast<std::size_t>(id)] == highest});
}

void TextGeneration::State::choose(Text& text, std::int64_t position, std::span<float> logits) {
  const std::int64_t seen = position + 1 - text.computed - text.rows;  // proposals, by this row
  if (text.done || seen > text.accepted) return;                       // one of them is wrong
  const GenerationRequest& request = text.request;
  const SampledToken token =
      text.sampler.next(logits, text.tokens, request.stream, text.tokens.size());
  if (text.result.seconds_to_first_token == 0) text.result.seconds_to_first_token = text.seconds();
  ++progress.tokens;
  if (std::ranges::find(request.stop_ids, token.id) != request.stop_ids.end()) {
    finish(text, FinishReason::kStop);
    return;
  }
  text.tokens.push_back(token.id);
  text.result.ids.push_back(token.id);
  if (seen < text.proposals() && text.proposed[static_cast<std::size_t>(seen)] == token.id) {
    ++text.accepted;
  }
  if (request.sampling.log_probability) {
    text.result.log_probabilities.push_back(token.log_probability);
  }
  if (request.on_token && request.on_token(token)) {
    finish(text, FinishReason::kStop);
  } else if (text.generated() >= request.max_new_tokens ||
             static_cast<std::int64_t>(text.tokens.size()) >= most_tokens) {
    finish(text, FinishReason::kLength);
  }
}

void TextGeneration::State::finish(Text& text, FinishReason reason, std::string error) {
  text.done = true;
  text.result.reason = reason;
  text.result.error = std::move(error);
  text.result.seconds = text.seconds();
  ++progress.finished;
  if (text.request.on_finish) text.request.on_finish(std::move(text.result));
}

/// After a pass: rows that it has computed, those of rejected proposals left out.
void TextGeneration::State::count_computed(Text& text) {
  const std::int64_t in_prompt =
      static_cast<std::int64_t>(text.request.prompt.size()) - text.computed;
  progress.prompt_tokens += std::clamp<std::int64_t>(in_prompt, 0, text.rows);
  progress.accepted += text.accepted;
  text.computed += std::exchange(text.rows, 0) + std::exchange(text.accepted, 0);
  text.proposed.clear();
}

void TextGeneration::State::after_pass() {
  for (const std::unique_ptr<Text>& text : running) {
    if (!text->done && text->missing() == 0) finish(*text, FinishReason::kLength);
    if (window > 0) cache().pass(text->id, text->computed - window + 1);
    if (window == 0) {
      const auto computed = static_cast<std::size_t>(text->computed);
      prefixes.add(text->id, std::span(text->tokens).first(computed));
    }
    if (!text->done) continue;
    if (window == 0) {
      kept.push_back(text->id);
    } else {
      cache().remove(text->id);
    }
  }
  std::erase_if(running, [](const std::unique_ptr<Text>& text) { return text->done; });
  progress.in_flight = static_cast<std::int64_t>(running.size());
  progress.waiting = static_cast<std::int64_t>(waiting.size());
  ++progress.passes;
}

TextGeneration::TextGeneration(const Context& context, Generator& generator,
                               const TextGenerationOptions& options)
    : state_(std::make_unique<State>(context, generator, options)) {}

TextGeneration::~TextGeneration() {
  for (const KvCache::Id id : state_->kept) state_->cache().remove(id);
  for (const std::unique_ptr<Text>& text : state_->running) state_->cache().remove(text->id);
  for (const std::unique_ptr<Text>& text : state_->waiting) {
    if (!text->stored.empty()) state_->generator.kv_swap()->drop(text->stored);
  }
}

void TextGeneration::run(const Source& next,
                         const std::function<void(const GenerationProgress&)>& after_pass) {
  State& state = *state_;
  bool exhausted = false;
  for (;;) {
    state.admit(next, exhausted);
    if (state.context.communicator.max(state.running.empty() ? 0.0 : 1.0) == 0.0) return;
    std::vector<Picked> picked;
    const PassRows pass = state.plan_pass(picked);
    state.generator.pass(pass, [&](std::int64_t first, TensorView logits) {
      // Texts have computed their rows only when the pass is over; what is sampled comes behind.
      const auto vocabulary = static_cast<std::size_t>(logits.shape()[1]);
      for (std::int64_t row = 0; row < logits.shape()[0]; ++row) {
        float* values = logits.as<float>() + static_cast<std::size_t>(row) * vocabulary;
        state.take(picked[static_cast<std::size_t>(first + row)], {values, vocabulary});
      }
    });
    for (const std::unique_ptr<Text>& text : state.running) state.count_computed(*text);
    state.after_pass();
    if (after_pass) after_pass(state.progress);
  }
}

}  // namespace strata
