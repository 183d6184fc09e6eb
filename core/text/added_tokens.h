#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/regex.h"

namespace strata {

/// A token that is found in the text before anything else looks at it.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character stands beside it
  bool lstrip = false;       ///< takes the white space on its left with it
  bool rstrip = false;
  bool normalized = true;  ///< looked for in the normalized text, as its content is
  bool special = false;
};

/// Finds added tokens: leftmost, then longest.
class AddedTokens {
 public:
  /// `contents` as they appear in the text, e.g. normalized; empty ones are never found.
  void add(std::string_view content, const AddedToken& token);
  bool empty() const noexcept { return tokens_.empty(); }

  /// Calls `piece` for what lies between tokens (never empty) and `token` for tokens, from left to
  /// right. @param parse_special false: special tokens are text like any other
  void split(std::string_view text, bool parse_special, const std::function<void(TextSpan)>& piece,
             const std::function<void(const AddedToken&)>& token) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::int32_t>> next;  // by byte
    std::int32_t token = -1;                                   // that ends here
  };
  struct Match {
    TextSpan span;
    std::int32_t token = -1;
  };
  std::int32_t step(std::int32_t node, unsigned char byte) const;
  Match longest_at(std::string_view text, std::size_t at, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  std::array<bool, 256> starts_{};
};

}  // namespace strata
