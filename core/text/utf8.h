#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace strata {

/// U+FFFD, which stands for whatever is not UTF-8.
inline constexpr char32_t kReplacement = 0xfffd;

struct Character {
  char32_t code = kReplacement;
  std::size_t bytes = 1;  ///< that it takes in the text; 1 for a byte that starts no character
  bool valid = false;
};

/// The first character of a text. Overlong forms, surrogates and what lies above U+10FFFF are not
/// valid. @pre text is not empty
Character first_character(std::string_view text) noexcept;

/// The last character of valid UTF-8. @pre text is not empty
Character last_character(std::string_view text) noexcept;

/// White space as Unicode says today.
bool is_space(char32_t code) noexcept;

void append_utf8(std::string& text, char32_t code);

/// Bytes of `text` from its beginning that are ASCII.
std::size_t ascii_prefix(std::string_view text) noexcept;

/// The text with every byte that is not part of valid UTF-8 replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

/// Bytes of `text` from its beginning that end with a complete character; what is left may become
/// one with more bytes. At most 3 bytes are left.
std::size_t complete_utf8(std::string_view text) noexcept;

}  // namespace strata
