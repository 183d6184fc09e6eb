#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

// Internal to core/text: a row of JSONL, reduced to what training rows are made of. Not installed.

/// A value of a row.
struct JsonField {
  enum class Kind : std::uint8_t { kMissing, kNull, kText, kNumber, kBoolean, kList, kObject };
  /// An object of a list: {"role", "content"} or {"from", "value"}.
  struct Turn;

  Kind kind = Kind::kMissing;
  std::string text;
  std::vector<Turn> turns;  ///< of "messages" and "conversations"
};

struct JsonField::Turn {
  Kind kind = Kind::kMissing;  ///< anything but kObject is a mistake
  JsonField role, content, from, value;
};

struct JsonRow {
  JsonField text, prompt, completion, instruction, input, output, messages, conversations;
};

/// "a number", for messages.
std::string_view describe(JsonField::Kind kind) noexcept;

/// Reads one JSON object, keeping the fields above. It may be hostile: valid UTF-8, no zero byte,
/// nesting at most 64, no key twice in one object. @throws FormatError that starts with `where`
JsonRow parse_json_row(std::string_view line, const std::string& where);

}  // namespace strata
