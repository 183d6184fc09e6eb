#include "core/text/added_tokens.h"

#include <algorithm>

#include <utf8proc.h>

#include "core/text/utf8.h"

namespace strata {
namespace {

/// \w: letters, marks, numbers and connecting punctuation.
bool is_word(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool stands_alone(std::string_view text, TextSpan span) {
  const bool left = span.begin > 0 && is_word(last_character(text.substr(0, span.begin)).code);
  const bool right = span.end < text.size() && is_word(first_character(text.substr(span.end)).code);
  return !left && !right;
}

}  // namespace

std::int32_t AddedTokens::step(std::int32_t node, unsigned char byte) const {
  const auto& next = nodes_[static_cast<std::size_t>(node)].next;
  const auto found = std::lower_bound(next.begin(), next.end(), std::pair(byte, std::int32_t{-1}));
  return found != next.end() && found->first == byte ? found->second : -1;
}

void AddedTokens::add(std::string_view content, const AddedToken& token) {
  if (content.empty()) return;
  starts_[static_cast<unsigned char>(content.front())] = true;
  std::int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    std::int32_t to = step(node, byte);
    if (to < 0) {
      to = static_cast<std::int32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& next = nodes_[static_cast<std::size_t>(node)].next;
      next.insert(std::lower_bound(next.begin(), next.end(), std::pair(byte, std::int32_t{-1})),
                  {byte, to});
    }
    node = to;
  }
  nodes_[static_cast<std::size_t>(node)].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokens::Match AddedTokens::longest_at(std::string_view text, std::size_t at,
                                           bool parse_special) const {
  Match best;
  std::int32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    node = step(node, static_cast<unsigned char>(text[i]));
    if (node < 0) break;
    const std::int32_t index = nodes_[static_cast<std::size_t>(node)].token;
    if (index < 0) continue;
    if (tokens_[static_cast<std::size_t>(index)].special && !parse_special) continue;
    best = {{at, i + 1}, index};
  }
  return best;
}

void AddedTokens::split(std::string_view text, bool parse_special,
                        const std::function<void(TextSpan)>& piece,
                        const std::function<void(const AddedToken&)>& token) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (!starts_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    Match match = longest_at(text, at, parse_special);
    if (match.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& found = tokens_[static_cast<std::size_t>(match.token)];
    const std::size_t end = match.span.end;
    if (found.single_word && !stands_alone(text, match.span)) {
      at = end;
      continue;
    }
    if (found.lstrip) {
      while (match.span.begin > done) {
        const Character before = last_character(text.substr(done, match.span.begin - done));
        if (!is_space(before.code)) break;
        match.span.begin -= before.bytes;
      }
    }
    if (found.rstrip) {
      while (match.span.end < text.size()) {
        const Character after = first_character(text.substr(match.span.end));
        if (!is_space(after.code)) break;
        match.span.end += after.bytes;
      }
    }
    if (match.span.begin > done) piece({done, match.span.begin});
    token(found);
    done = at = match.span.end;
  }
  if (done < text.size()) piece({done, text.size()});
}

}  // namespace strata
