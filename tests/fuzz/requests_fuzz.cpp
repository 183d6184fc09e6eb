#include <stdexcept>

#include "core/error.h"
#include "launch/generation/request_rows.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_requests(std::string_view input) try {
  const RequestRow row = parse_request_row(input, "input");
  if (row.form == RequestForm::kChatBatch && row.messages.empty()) {
    throw std::logic_error("an accepted chat has no message");
  }
  if (row.form != RequestForm::kPlain && row.id.empty()) {
    throw std::logic_error("an accepted row of a batch has no id");
  }
  if (row.overrides.max_tokens.value_or(1) < 1) {
    throw std::logic_error("an accepted row asks for no token");
  }
  for (const std::string& stop : row.overrides.stop) {
    if (stop.empty()) throw std::logic_error("an accepted stop string is empty");
  }
} catch (const FormatError&) {
}

}  // namespace strata::test
