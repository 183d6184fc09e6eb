#include "core/text/ascii_words.h"

#include <array>
#include <cstdint>

namespace strata {
namespace {

enum class Class : std::uint8_t { kOther, kLetter, kDigit, kSpace, kLineEnd, kEnd, kUnknown };

constexpr std::array<Class, 256> kClasses = [] {
  std::array<Class, 256> classes{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    classes[byte] = byte >= 0x80                               ? Class::kUnknown
                    : letter                                   ? Class::kLetter
                    : byte >= '0' && byte <= '9'               ? Class::kDigit
                    : byte == '\n' || byte == '\r'             ? Class::kLineEnd
                    : byte == ' ' || (byte >= 9 && byte <= 13) ? Class::kSpace
                                                               : Class::kOther;
  }
  return classes;
}();

Class at(std::string_view text, std::size_t index) {
  return index < text.size() ? kClasses[static_cast<unsigned char>(text[index])] : Class::kEnd;
}

bool is_white(Class one) { return one == Class::kSpace || one == Class::kLineEnd; }

/// The first place from `index` on that is not of the class.
std::size_t skip(std::string_view text, std::size_t index, Class same) {
  while (at(text, index) == same) ++index;
  return index;
}

/// A place where something ends, unless what comes next may belong to it.
std::size_t unless_unknown(std::string_view text, std::size_t end) {
  return at(text, end) == Class::kUnknown ? 0 : end;
}

/// 's|'t|'re|'ve|'m|'ll|'d behind an apostrophe. @return its end, or 0
template <bool kAnyCase>
std::size_t contraction(std::string_view text, std::size_t begin) {
  const auto letter = [&](std::size_t index) {
    const char c = index < text.size() ? text[index] : '\0';
    return kAnyCase && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(begin + 1);
  const char second = letter(begin + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return begin + 2;
  const bool two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                   (first == 'l' && second == 'l');
  return two ? begin + 3 : 0;
}

/// \s+(?!\S)|\s+ where nothing else matches white space.
std::size_t white_space(std::string_view text, std::size_t begin, std::size_t end) {
  if (at(text, end) == Class::kUnknown) return 0;
  return end == text.size() || end - begin == 1 ? end : end - 1;
}

std::size_t end_of_white(std::string_view text, std::size_t index) {
  while (is_white(at(text, index))) ++index;
  return index;
}

std::size_t gpt2(std::string_view text, std::size_t begin) {
  if (text[begin] == '\'') {
    if (at(text, begin + 1) == Class::kUnknown) return 0;
    if (const std::size_t end = contraction<false>(text, begin)) return end;
  }
  const std::size_t word = text[begin] == ' ' ? begin + 1 : begin;
  const Class kind = at(text, word);
  if (kind == Class::kUnknown) return 0;
  if (kind == Class::kLetter || kind == Class::kDigit || kind == Class::kOther) {
    return unless_unknown(text, skip(text, word, kind));
  }
  return white_space(text, begin, end_of_white(text, begin));
}

/// Llama 3's, and Qwen2's with one digit in a word.
template <int kDigits>
std::size_t llama3(std::string_view text, std::size_t begin) {
  const Class kind = at(text, begin);
  if (kind == Class::kLetter) return unless_unknown(text, skip(text, begin, Class::kLetter));
  if (kind == Class::kDigit) {
    std::size_t end = begin + 1;
    while (end < begin + kDigits && at(text, end) == Class::kDigit) ++end;
    return end < begin + kDigits ? unless_unknown(text, end) : end;
  }
  const Class next = at(text, begin + 1);
  if (kind == Class::kUnknown || next == Class::kUnknown) return 0;
  if (text[begin] == '\'') {
    // (?i) lets a long s, which is not ASCII, be an s.
    if (at(text, begin + 2) == Class::kUnknown) return 0;
    if (const std::size_t end = contraction<true>(text, begin)) return end;
  }
  if (next == Class::kLetter && kind != Class::kLineEnd) {
    return unless_unknown(text, skip(text, begin + 1, Class::kLetter));
  }
  if (kind == Class::kOther || (text[begin] == ' ' && next == Class::kOther)) {
    const std::size_t end = skip(text, begin + 1, Class::kOther);
    return at(text, end) == Class::kUnknown ? 0 : skip(text, end, Class::kLineEnd);
  }
  const std::size_t end = end_of_white(text, begin);
  if (at(text, end) == Class::kUnknown) return 0;
  const std::size_t line_end = text.substr(begin, end - begin).find_last_of("\r\n");
  return line_end != std::string_view::npos ? begin + line_end + 1 : white_space(text, begin, end);
}

constexpr std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

}  // namespace

AsciiMatch ascii_match_of(std::string_view pattern) noexcept {
  if (pattern == kGpt2Pattern) return gpt2;
  if (pattern == kLlama3Pattern) return llama3<3>;
  if (pattern == kQwen2Pattern) return llama3<1>;
  return nullptr;
}

}  // namespace strata
