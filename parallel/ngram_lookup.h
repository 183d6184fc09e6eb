#pragma once

// Internal to text generation. Not installed.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace strata {

/// Proposes how a text goes on: what followed the tokens it ends with when it had them before
/// (prompt look-up decoding). Of one text: it remembers where each token was.
class NgramLookup {
 public:
  /// What may come next, at most `most` tokens; empty: the last token of the text is new to it.
  /// Of the places that agree with the end of the text in most tokens, up to 3, the latest counts.
  /// A copy that comes to the end of the text goes on in itself: what repeats is taken to repeat
  /// on. Takes constant time for each token that is new since the last call.
  /// @param text that of the last call, with tokens behind it
  std::vector<std::int32_t> propose(std::span<const std::int32_t> text, std::int64_t most);

 private:
  std::int32_t find(std::span<const std::int32_t> text) const;

  std::unordered_map<std::int32_t, std::int32_t> latest_;  // by token: its last place
  std::vector<std::int32_t> before_;  // by place: that of the same token before it; -1: none
};

}  // namespace strata
