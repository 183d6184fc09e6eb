#include <algorithm>
#include <stdexcept>

#include "core/error.h"
#include "core/text/training_rows.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_rows(std::string_view input) try {
  static const auto tokenizer = make_byte_tokenizer();
  static const ChatTemplate chat = ChatTemplate::choose(*tokenizer, {}, "plain");
  const RowReader reader(detect_row_form(input, "input"), *tokenizer, &chat);
  Document document;
  reader.read(input, "input", document);
  if (document.ids.size() != document.trained.size()) {
    throw std::logic_error("a document has more or fewer marks than tokens");
  }
  if (!document.ids.empty() && std::ranges::count(document.trained, 1) == 0) {
    throw std::logic_error("an accepted row has nothing to learn");
  }
} catch (const FormatError&) {
}

}  // namespace strata::test
