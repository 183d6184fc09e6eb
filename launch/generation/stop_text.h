#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace strata {

/// The text of a token stream up to the first of a few strings, as far as it may be shown: what
/// could be the beginning of a stop string is held back until it is known. A stop string may begin
/// in one token and end in another.
class StopText {
 public:
  /// @param tokenizer borrowed. @param stops none of them empty
  StopText(const Tokenizer& tokenizer, std::vector<std::string> stops);

  /// What may be shown now that this token is there; nothing after a stop string.
  std::string add(std::int32_t id);
  /// What was held back, at the end of the tokens.
  std::string finish();
  /// Whether a stop string has occurred. It is cut off, with what follows it.
  bool stopped() const noexcept { return stopped_; }

 private:
  std::string take(std::string_view more);

  StreamingDecoder decoder_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace strata
