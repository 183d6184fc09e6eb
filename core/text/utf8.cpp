#include "core/text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace strata {
namespace {

/// Bytes that a character with this first byte takes; 0 for a byte that starts none.
std::size_t length_of(unsigned char first) noexcept {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) return 3;
  return first < 0xf5 ? 4 : 0;
}

bool is_continuation(char c) noexcept { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

Character first_character(std::string_view text) noexcept {
  const auto first = static_cast<unsigned char>(text.front());
  const std::size_t length = length_of(first);
  if (length == 1) return {first, 1, true};
  if (length == 0 || text.size() < length) return {};
  char32_t code = first & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[i])) return {};
    code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3fu);
  }
  const char32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < least || surrogate || code > 0x10ffff) return {};
  return {code, length, true};
}

Character last_character(std::string_view text) noexcept {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && is_continuation(text[begin])) --begin;
  return first_character(text.substr(begin));
}

bool is_space(char32_t code) noexcept {
  return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

void append_utf8(std::string& text, char32_t code) {
  const auto tail = [&](int shift) {
    text += static_cast<char>(0x80u | ((code >> shift) & 0x3fu));
  };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0u | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xe0u | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xf0u | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

std::size_t ascii_prefix(std::string_view text) noexcept {
  std::size_t length = 0;
  for (std::uint64_t eight = 0; text.size() - length >= sizeof(eight); length += sizeof(eight)) {
    std::memcpy(&eight, text.data() + length, sizeof(eight));
    if ((eight & 0x8080808080808080u) != 0) break;
  }
  while (length < text.size() && static_cast<unsigned char>(text[length]) < 0x80) ++length;
  return length;
}

std::string valid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  std::size_t valid = 0;  // bytes of the beginning that are known to be
  while (valid < text.size()) {
    valid += ascii_prefix(text.substr(valid));
    if (valid == text.size()) break;
    const Character character = first_character(text.substr(valid));
    if (character.valid) {
      valid += character.bytes;
      continue;
    }
    result.append(text, 0, valid);
    append_utf8(result, kReplacement);
    text.remove_prefix(valid + character.bytes);
    valid = 0;
  }
  return result.append(text);
}

std::size_t complete_utf8(std::string_view text) noexcept {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const std::size_t at = text.size() - back;
    if (is_continuation(text[at])) continue;
    return length_of(static_cast<unsigned char>(text[at])) > back ? at : text.size();
  }
  return text.size();
}

}  // namespace strata
