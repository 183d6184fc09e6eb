#include "parallel/ngram_lookup.h"

namespace strata {
namespace {

constexpr std::int32_t kLongest = 3;  // tokens that are compared
/// Places that are compared: of a frequent token, the last ones have to do.
constexpr int kMostPlaces = 256;

/// In how many tokens the text up to `place` ends like the text, up to kLongest.
std::int32_t agreement(std::span<const std::int32_t> text, std::int32_t place) {
  const auto end = static_cast<std::int32_t>(text.size()) - 1;
  std::int32_t tokens = 0;
  while (tokens < kLongest && tokens <= place &&
         text[static_cast<std::size_t>(place - tokens)] ==
             text[static_cast<std::size_t>(end - tokens)]) {
    ++tokens;
  }
  return tokens;
}

}  // namespace

std::int32_t NgramLookup::find(std::span<const std::int32_t> text) const {
  std::int32_t best = -1, most = 0;
  std::int32_t place = before_.back();
  for (int tried = 0; tried < kMostPlaces && place >= 0 && most < kLongest; ++tried) {
    const std::int32_t tokens = agreement(text, place);
    if (tokens > most) {
      most = tokens;
      best = place;
    }
    place = before_[static_cast<std::size_t>(place)];
  }
  return best;
}

std::vector<std::int32_t> NgramLookup::propose(std::span<const std::int32_t> text,
                                               std::int64_t most) {
  for (std::size_t place = before_.size(); place < text.size(); ++place) {
    const auto here = static_cast<std::int32_t>(place);
    const auto [found, is_new] = latest_.try_emplace(text[place], here);
    before_.push_back(is_new ? -1 : found->second);
    found->second = here;
  }
  std::vector<std::int32_t> tokens;
  if (text.empty()) return tokens;
  const std::int32_t place = find(text);
  if (place < 0) return tokens;
  const std::size_t from = static_cast<std::size_t>(place) + 1;
  for (std::size_t i = 0; i < static_cast<std::size_t>(most); ++i) {
    const std::size_t source = from + i;
    tokens.push_back(source < text.size() ? text[source] : tokens[source - text.size()]);
  }
  return tokens;
}

}  // namespace strata
