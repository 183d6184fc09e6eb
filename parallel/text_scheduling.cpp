#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "parallel/text_generation_state.h"

namespace strata {
namespace {

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

TextGeneration::State::State(const Context& given, Generator& used,
                             const TextGenerationOptions& wanted)
    : context(given), generator(used), options(wanted), window(widest_window(used.model())) {
  const std::int64_t positions = generator.model().position_count();
  most_tokens =
      options.max_tokens > 0 ? options.max_tokens : std::numeric_limits<std::int64_t>::max();
  if (positions > 0) most_tokens = std::min(most_tokens, positions);
  // Where windows pass pages, what is left is soon computed, and beginnings are not shared.
  KvSwap* swap = generator.kv_swap();
  if (swap != nullptr && window == 0) stored_prefixes.emplace(*swap);
}

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
  if (!text.stored.empty()) return place_stored(text);
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
    read_prefix(text, shareable);
    progress.shared_tokens += text.computed;
    return true;
  }
  cache().remove(std::exchange(text.id, -1));
  return false;
}

/// The same for one whose pages wait on a drive.
bool TextGeneration::State::place_stored(Text& text) {
  text.id = cache().add();
  if (!grow(text, static_cast<std::int64_t>(text.tokens.size()) + 1)) {
    cache().remove(std::exchange(text.id, -1));
    return false;
  }
  generator.kv_swap()->load(text.stored, cache().pages(text.id).first(text.stored.size()));
  generator.kv_swap()->drop(std::exchange(text.stored, {}));
  return true;
}

/// Of the first `most` pages of a text, reads those that wait on a drive and that it does not have.
void TextGeneration::State::read_prefix(Text& text, std::int64_t most) {
  if (!stored_prefixes) return;
  const auto has = static_cast<std::size_t>(text.computed / kPageTokens);
  const auto found = stored_prefixes->find(text.tokens, static_cast<std::size_t>(most));
  if (found.size() <= has) return;
  const std::span<const std::int32_t> missing = std::span(found).subspan(has);
  generator.kv_swap()->load(missing, cache().pages(text.id).subspan(has, missing.size()));
  const std::int64_t read = static_cast<std::int64_t>(missing.size()) * kPageTokens;
  text.computed += read;
  progress.read_tokens += read;
}

/// Whether the text can have pages for so many tokens, at the cost of finished texts.
bool TextGeneration::State::free_pages(const Text& wants, std::int64_t tokens) {
  const auto has = static_cast<std::int64_t>(cache().pages(wants.id).size());
  while (pages_for(tokens) - has > cache().free_pages()) {
    if (kept.empty()) return false;
    if (stored_prefixes) {
      const std::span<const std::int32_t> own = prefixes.tokens(kept.front());
      const auto full = own.size() / kPageTokens;
      stored_prefixes->store(own, cache().pages(kept.front()).first(full));
    }
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
  const auto pages = static_cast<std::size_t>(pages_for(text->computed));
  if (stored_prefixes && stored_prefixes->make_room(pages)) {
    text->stored = generator.kv_swap()->store(cache().pages(text->id).first(pages));
  }
  cache().remove(std::exchange(text->id, -1));
  text->rows = 0;
  ++progress.preempted;
  if (!text->stored.empty()) {
    ++progress.swapped;
  } else {
    text->computed = 0;
    text->result.scores.clear();
  }
  waiting.push_front(std::move(text));
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

}  // namespace strata
