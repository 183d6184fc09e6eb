#pragma once

#include <cstddef>
#include <string_view>

namespace strata {

// Internal to core/text: what the pre-tokenizer patterns of the large families match, for text that
// is mostly ASCII. Not installed.

/// A pattern by hand: where its match at `at` ends, or 0 where characters that are not ASCII have a
/// say and the regular expression must be asked. @pre at < text.size()
using AsciiMatch = std::size_t (*)(std::string_view text, std::size_t at);

/// The match of a pattern as tokenizer files spell it: GPT-2's, Llama 3's, Qwen2's. Null for any
/// other.
AsciiMatch ascii_match_of(std::string_view pattern) noexcept;

inline constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

}  // namespace strata
