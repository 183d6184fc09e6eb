#include "core/error.h"
#include "core/text/tokenizer.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_tokenizer(std::string_view input) try {
  const auto tokenizer = parse_tokenizer(input, "input");
  const auto ids = tokenizer->encode(input, {.parse_special = true, .add_special = true});
  tokenizer->decode(ids, false);
} catch (const FormatError&) {
} catch (const Error&) {  // a pattern that takes too long
}

}  // namespace strata::test
