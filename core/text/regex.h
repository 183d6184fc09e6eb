#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace strata {

/// Bytes [begin, end) of a text.
struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// A regular expression as tokenizer files write them (Oniguruma's dialect as far as they use it),
/// run by PCRE2 with Unicode classes. Immutable, so it can be shared by threads.
///
/// White space is what Unicode says today: U+180E, a space for PCRE2, is none.
class Regex {
 public:
  /// @param path for messages. @throws FormatError that names what is wrong with the pattern
  Regex(std::string_view pattern, const std::string& path);
  /// A pattern that matches just this text.
  static Regex literal(std::string_view text, const std::string& path);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Calls `found` for the matches of a valid UTF-8 text from left to right; empty ones are passed
  /// over. Linear in the text for the patterns of the known families.
  /// @throws Error when a pattern needs more time or memory than a match may take
  void for_each_match(std::string_view text, const std::function<void(TextSpan)>& found) const;
  /// The text with `content` in place of every match.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace strata
