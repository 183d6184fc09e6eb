#include "core/text/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>

#include "core/error.h"
#include "core/text/text_steps.h"
#include "core/text/utf8.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostTokens = 1 << 22;
constexpr std::size_t kFewSymbols = 48;  // up to here looking through all pairs beats a heap

std::array<std::string, 256> make_byte_characters() {
  std::array<std::string, 256> result;
  char32_t next_free = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    append_utf8(result[byte], prints ? byte : next_free++);
  }
  return result;
}

/// A token of a byte-level vocabulary as bytes; one with a character that spells no byte (special
/// tokens) stays as it is.
std::string spelled_bytes(const std::string& token) {
  static const std::unordered_map<std::string, char> bytes = [] {
    std::unordered_map<std::string, char> map;
    for (unsigned byte = 0; byte < 256; ++byte) {
      map.emplace(byte_characters()[byte], static_cast<char>(byte));
    }
    return map;
  }();
  std::string result;
  for (std::string_view rest = token; !rest.empty();) {
    const std::size_t length = first_character(rest).bytes;
    const auto found = bytes.find(std::string(rest.substr(0, length)));
    if (found == bytes.end()) return token;
    result += found->second;
    rest.remove_prefix(length);
  }
  return result;
}

/// The order of the heap, whose front is the lowest rank, then the leftmost.
bool merged_later(const BpeModel::Scratch::Candidate& a, const BpeModel::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

const std::array<std::string, 256>& byte_characters() {
  static const std::array<std::string, 256> characters = make_byte_characters();
  return characters;
}

BpeModel::BpeModel(const json& model, bool byte_level, const std::string& path)
    : byte_level_(byte_level) {
  const std::string type = model.value("type", "BPE");
  if (type != "BPE") {
    throw FormatError(fmt::format(
        "{}: the tokenizer is a {:.40} model; supported is BPE: use a model with such a "
        "tokenizer",
        path, type));
  }
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const json value = model.value(key, json());
    if (!value.is_null() && value != "" && value != 0.0) {
      throw FormatError(fmt::format("{}: model.{} is {:.80}; supported is null", path, key,
                                    value.dump(-1, ' ', true, json::error_handler_t::replace)));
    }
  }
  read_vocabulary(model.at("vocab"), path);
  read_merges(model.value("merges", json::array()), path);
  ignore_merges_ = model.value("ignore_merges", false);
  byte_fallback_ = model.value("byte_fallback", false);
  fuse_unknown_ = model.value("fuse_unk", false);
  const json unknown = model.value("unk_token", json());
  if (unknown.is_string()) {
    const auto found = find_spelled(unknown.get<std::string>());
    if (!found) {
      throw FormatError(fmt::format("{}: unk_token {} is not in the vocabulary", path,
                                    unknown.dump(-1, ' ', true, json::error_handler_t::replace)));
    }
    unknown_ = *found;
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string token =
        byte_level_ ? std::string(1, static_cast<char>(byte)) : fmt::format("<0x{:02X}>", byte);
    byte_ids_[byte] = find(token).value_or(-1);
  }
}

void BpeModel::read_vocabulary(const json& vocabulary, const std::string& path) {
  if (!vocabulary.is_object() || vocabulary.empty()) {
    throw FormatError(fmt::format("{}: model.vocab must be an object of tokens and ids", path));
  }
  std::int64_t largest = 0;
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
      throw FormatError(fmt::format("{}: the id of token {:.80} is not one from 0 to {}", path,
                                    json(token).dump(-1, ' ', true, json::error_handler_t::replace),
                                    kMostTokens - 1));
    }
    largest = std::max(largest, id.get<std::int64_t>());
  }
  texts_.resize(static_cast<std::size_t>(largest) + 1);
  taken_.resize(texts_.size(), false);
  for (const auto& [token, value] : vocabulary.items()) {
    const auto id = value.get<std::int32_t>();
    const auto index = static_cast<std::size_t>(id);
    if (taken_[index]) throw FormatError(fmt::format("{}: two tokens have the id {}", path, id));
    taken_[index] = true;
    texts_[index] = byte_level_ ? spelled_bytes(token) : token;
    ids_.emplace(texts_[index], id);
  }
}

void BpeModel::read_merges(const json& merges, const std::string& path) {
  std::uint32_t rank = 0;
  merges_.reserve(merges.size());
  for (const json& entry : merges) {
    std::string left, right;
    if (entry.is_string()) {
      const std::string text = entry.get<std::string>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    }
    const auto a = find_spelled(left);
    const auto b = find_spelled(right);
    const auto merged = find_spelled(left + right);
    if (!a || !b || !merged) {
      throw FormatError(
          fmt::format("{}: merge {} of {:.80} does not fit the vocabulary: both sides and what "
                      "they make must be tokens",
                      path, rank, entry.dump(-1, ' ', true, json::error_handler_t::replace)));
    }
    merges_.put(*a, *b, {rank, *merged});
    ++rank;
  }
}

const std::string* BpeModel::text(std::int32_t id) const {
  const auto index = static_cast<std::size_t>(id);
  return id >= 0 && index < texts_.size() && taken_[index] ? &texts_[index] : nullptr;
}

std::optional<std::int32_t> BpeModel::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::int32_t> BpeModel::find_spelled(const std::string& token) const {
  return find(byte_level_ ? spelled_bytes(token) : token);
}

void BpeModel::encode(std::string_view word, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const {
  if (word.empty() || scratch.words.find(word, ids)) return;
  const std::size_t first = ids.size();
  const auto whole = ignore_merges_ ? find(word) : std::nullopt;
  if (whole) {
    ids.push_back(*whole);
  } else {
    split(word, scratch);
    if (scratch.ids.size() <= kFewSymbols) {
      merge_few(scratch);
    } else {
      merge_many(scratch);
    }
    std::ranges::copy_if(scratch.ids, std::back_inserter(ids),
                         [](std::int32_t id) { return id >= 0; });
  }
  scratch.words.add(word, std::span(ids).subspan(first));
}

void BpeModel::split(std::string_view word, Scratch& scratch) const {
  scratch.ids.clear();
  while (!word.empty()) {
    const std::size_t length = byte_level_ ? 1 : first_character(word).bytes;
    const std::string_view character = word.substr(0, length);
    const auto id = byte_level_ && byte_ids_[static_cast<unsigned char>(word.front())] >= 0
                        ? std::optional(byte_ids_[static_cast<unsigned char>(word.front())])
                        : find(character);
    if (id) {
      scratch.ids.push_back(*id);
    } else {
      add_unknown(character, scratch);
    }
    word.remove_prefix(length);
  }
}

void BpeModel::add_unknown(std::string_view character, Scratch& scratch) const {
  if (byte_fallback_ && std::ranges::all_of(character, [&](char c) {
        return byte_ids_[static_cast<unsigned char>(c)] >= 0;
      })) {
    for (const char c : character) {
      scratch.ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    }
    return;
  }
  if (unknown_ < 0) return;  // dropped
  const bool repeats = !scratch.ids.empty() && scratch.ids.back() == unknown_;
  if (!(fuse_unknown_ && repeats)) scratch.ids.push_back(unknown_);
}

void BpeModel::merge_few(Scratch& scratch) const {
  auto& ids = scratch.ids;
  auto& ranks = scratch.ranks;
  constexpr std::uint32_t kNone = ~std::uint32_t{0};
  const auto rank_at = [&](std::size_t left) {
    const auto* merge = left + 1 < ids.size() ? merges_.find(ids[left], ids[left + 1]) : nullptr;
    return merge == nullptr ? kNone : merge->rank;
  };
  ranks.resize(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ranks[i] = rank_at(i);
  while (ids.size() > 1) {
    const auto best = static_cast<std::size_t>(std::ranges::min_element(ranks) - ranks.begin());
    if (ranks[best] == kNone) return;
    ids[best] = merges_.find(ids[best], ids[best + 1])->merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    ranks.erase(ranks.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    ranks[best] = rank_at(best);
    if (best > 0) ranks[best - 1] = rank_at(best - 1);
  }
}

void BpeModel::push(std::int32_t left, Scratch& scratch) const {
  if (left < 0) return;
  const std::int32_t right = scratch.symbols[static_cast<std::size_t>(left)].after;
  if (right < 0) return;
  const auto* found = merges_.find(scratch.ids[static_cast<std::size_t>(left)],
                                   scratch.ids[static_cast<std::size_t>(right)]);
  if (found == nullptr) return;
  scratch.heap.push_back({found->rank, left, found->merged});
  std::ranges::push_heap(scratch.heap, merged_later);
}

void BpeModel::merge_many(Scratch& scratch) const {
  auto& ids = scratch.ids;
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto count = static_cast<std::int32_t>(ids.size());
  symbols.resize(ids.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)] = {i - 1, i + 1 < count ? i + 1 : -1};
  }
  heap.clear();
  for (std::int32_t i = 0; i + 1 < count; ++i) push(i, scratch);
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, merged_later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    const auto at = static_cast<std::size_t>(best.left);
    if (ids[at] < 0 || symbols[at].after < 0) continue;
    const auto next = static_cast<std::size_t>(symbols[at].after);
    // The pair may have changed since it was noted.
    const auto* now = merges_.find(ids[at], ids[next]);
    if (now == nullptr || now->merged != best.merged) continue;
    ids[at] = best.merged;
    ids[next] = -1;
    symbols[at].after = symbols[next].after;
    if (symbols[next].after >= 0) {
      symbols[static_cast<std::size_t>(symbols[next].after)].before = best.left;
    }
    push(symbols[at].before, scratch);
    push(best.left, scratch);
  }
}

}  // namespace strata
