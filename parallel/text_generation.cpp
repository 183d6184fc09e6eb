#include "parallel/text_generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <limits>
#include <utility>

#include "parallel/ngram_lookup.h"
#include "parallel/prefix_index.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t pages_for(std::int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

/// Tokens that no block looks back beyond; 0: some block sees everything.
std::int64_t widest_window(const Model& model) {
  std::int64_t widest = 0;
  for (int block = 0; block < model.block_count(); ++block) {
    const std::optional<KvLayer> layer = model.block(block).kv_layer();
    if (!layer) continue;
    if (layer->window == 0) return 0;
    widest = std::max(widest, layer->window);
  }
  return widest;
}

}  // namespace

/// A text in flight, or waiting for pages.
struct TextGeneration::Text {
  Text(GenerationRequest given, std::span<const std::int32_t> unknown)
      : request(std::move(given)), tokens(request.prompt), sampler(request.sampling, unknown) {}

  GenerationRequest request;
  std::vector<std::int32_t> tokens;  // of the prompt, then generated
  Sampler sampler;
  GenerationResult result;
  Clock::time_point taken = Clock::now();
  KvCache::Id id = -1;        // while it has pages
  std::int64_t computed = 0;  // tokens whose keys and values lie in them
  std::int64_t rows = 0;      // of the pass under way, beside those of proposals
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
  double seconds() const { return std::chrono::duration<double>(Clock::now() - taken).count(); }
};

/// A row whose logits are wanted: what it says of the token after `position`.
struct TextGeneration::Picked {
  Text* text = nullptr;
  std::int64_t position = 0;
};

struct TextGeneration::State {
  State(const Context& given, Generator& used, const TextGenerationOptions& wanted)
      : context(given), generator(used), options(wanted), window(widest_window(used.model())) {
    const std::int64_t positions = generator.model().position_count();
    most_tokens =
        options.max_tokens > 0 ? options.max_tokens : std::numeric_limits<std::int64_t>::max();
    if (positions > 0) most_tokens = std::min(most_tokens, positions);
  }

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

  void admit(const Source& next, bool& exhausted);
  bool place(Text& text);
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

std::string TextGeneration::State::refusal(const GenerationRequest& request) const {
  if (request.prompt.empty()) return "the prompt has no token; give it some text";
  const std::int64_t vocabulary = generator.model().vocabulary_size();
  for (const std::int32_t id : request.prompt) {
    if (id >= 0 && id < vocabulary) continue;
    return fmt::format("token id {} is outside the model's vocabulary of {}", id, vocabulary);
  }
  const auto tokens = static_cast<std::int64_t>(request.prompt.size());
  if (tokens > most_tokens || (tokens == most_tokens && request.max_new_tokens > 0)) {
    return fmt::format(
        "the prompt has {} tokens and the model's context {}; shorten it, so that there is room "
        "for what comes",
        tokens, most_tokens);
  }
  const std::int64_t all = std::min(tokens + request.max_new_tokens, most_tokens);
  const auto pages = static_cast<std::int64_t>(generator.cache().page_count());
  if (pages_of(all) <= pages) return {};
  return fmt::format(
      "{} tokens of prompt and up to {} new ones take more keys and values than the {} tokens that "
      "there is memory for; give more with --kv_memory, or generate fewer tokens",
      tokens, request.max_new_tokens, pages * kPageTokens);
}

void TextGeneration::State::admit(const Source& next, bool& exhausted) {
  const auto full = [&] {
    return static_cast<std::int64_t>(running.size()) >= options.max_sequences;
  };
  while (!full()) {
    if (waiting.empty()) {
      std::optional<GenerationRequest> request = exhausted ? std::nullopt : next();
      exhausted = !request.has_value();
      if (exhausted) return;
      auto text = std::make_unique<Text>(std::move(*request), options.unknown);
      std::string wrong = refusal(text->request);
      const bool nothing = text->request.max_new_tokens <= 0 && !text->request.score_from;
      if (!wrong.empty() || nothing) {
        finish(*text, wrong.empty() ? FinishReason::kLength : FinishReason::kError, wrong);
        continue;
      }
      waiting.push_back(std::move(text));
    }
    if (!place(*waiting.front())) return;
    running.push_back(std::move(waiting.front()));
    waiting.pop_front();
  }
}

/// Gives a text its first pages, those of others that begin like it where there are any.
bool TextGeneration::State::place(Text& text) {
  const auto tokens = static_cast<std::int64_t>(text.tokens.size());
  // What comes before the first token whose logits are wanted.
  const std::int64_t before = std::min(tokens, text.request.score_from.value_or(tokens)) - 1;
  const int shareable = window > 0 ? 0 : static_cast<int>(before / kPageTokens);
  const PrefixIndex::Match match = prefixes.find(text.tokens, shareable);
  text.id = match.pages > 0 ? cache().add_sharing(match.id, match.pages) : cache().add();
  // Room for the next token, too, so that texts are not placed to be preempted at once.
  const std::int64_t wanted = tokens + (text.request.max_new_tokens > 0 ? 1 : 0);
  if (grow(text, std::min(wanted, pages_of(wanted) * kPageTokens))) {
    text.computed = match.pages * kPageTokens;
    progress.shared_tokens += text.computed;
    return true;
  }
  cache().remove(std::exchange(text.id, -1));
  return false;
}

/// Whether the text can have pages for so many tokens, at the cost of finished texts.
bool TextGeneration::State::free_pages(const Text& wants, std::int64_t tokens) {
  const auto has = static_cast<std::int64_t>(cache().pages(wants.id).size());
  while (pages_for(tokens) - has > cache().free_pages()) {
    if (kept.empty()) return false;
    prefixes.remove(kept.front());
    cache().remove(kept.front());
    kept.pop_front();
  }
  return true;
}

bool TextGeneration::State::grow(Text& text, std::int64_t tokens) {
  return free_pages(text, tokens) && cache().grow(text.id, tokens);
}

void TextGeneration::State::preempt_youngest() {
  std::unique_ptr<Text> text = std::move(running.back());
  running.pop_back();
  prefixes.remove(text->id);
  cache().remove(std::exchange(text->id, -1));
  text->computed = 0;
  text->rows = 0;
  text->result.scores.clear();
  waiting.push_front(std::move(text));
  ++progress.preempted;
}

/// The next token of texts that have computed all others, and pieces of the rest, the oldest first.
PassRows TextGeneration::State::plan_pass(std::vector<Picked>& picked) {
  std::int64_t left = generator.plan().rows;
  for (const bool prompts : {false, true}) {
    for (std::size_t i = 0; i < running.size() && left > 0; ++i) {
      Text& text = *running[i];
      if ((text.missing() > 1) != prompts) continue;
      text.rows = std::min(text.missing(), left);
      while (!grow(text, text.computed + text.rows)) {
        const bool last = i + 1 == running.size();
        preempt_youngest();
        if (last) break;  // it was its own turn
      }
      if (i < running.size()) left -= running[i]->rows;
    }
  }
  propose(generator.plan().rows - left);
  PassRows pass;
  for (const std::unique_ptr<Text>& text : running) {
    if (text->rows == 0) continue;
    const auto row = static_cast<std::int64_t>(pass.ids.size());
    const auto known = static_cast<std::int64_t>(text->tokens.size());
    const std::int64_t rows = text->rows + text->proposals();
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t position = text->computed + i;
      pass.ids.push_back(position < known
                             ? text->tokens[static_cast<std::size_t>(position)]
                             : text->proposed[static_cast<std::size_t>(position - known)]);
      pass.positions.push_back(static_cast<std::int32_t>(position));
      const bool chooses = position + 1 >= known && text->request.max_new_tokens > 0;
      if (!text->scored(position + 1) && !chooses) continue;
      pass.picked.push_back(row + i);
      picked.push_back({text.get(), position});
    }
    pass.sequences.push_back(
        {.row = row, .rows = rows, .position = text->computed, .pages = cache().pages(text->id)});
  }
  return pass;
}

/// Proposals for texts that this pass brings to their end: in what is left of rows, and of pages
/// without taking any from other texts. What is rejected is written over by the next pass.
/// @param rows that the pass has
void TextGeneration::State::propose(std::int64_t rows) {
  if (options.speculate == 0) return;
  const std::int64_t all = generator.plan().rows;
  const std::int64_t most =
      options.speculate_rows > 0 ? std::min(options.speculate_rows, all) : all;
  std::int64_t left = most - rows;
  for (const std::unique_ptr<Text>& text : running) {
    const auto known = static_cast<std::int64_t>(text->tokens.size());
    // The pass chooses one token more than it accepts.
    const std::int64_t wanted =
        std::min(text->request.max_new_tokens - text->generated(), most_tokens - known) - 1;
    const std::int64_t room = std::min({options.speculate, left, wanted});
    if (text->rows < text->missing() || room <= 0) continue;
    text->proposed = text->lookup.propose(text->tokens, room);
    if (!cache().grow(text->id, known + text->proposals())) {
      const auto pages = static_cast<std::int64_t>(cache().pages(text->id).size());
      text->proposed.resize(static_cast<std::size_t>(pages * kPageTokens - known));
    }
    left -= text->proposals();
    progress.proposed += text->proposals();
  }
}

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
