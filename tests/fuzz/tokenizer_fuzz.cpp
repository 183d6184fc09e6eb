#include <stdexcept>

#include "core/error.h"
#include "core/text/tokenizer.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_tokenizer(std::string_view input) try {
  const auto tokenizer = parse_tokenizer(input, "input");
  const auto ids = tokenizer->encode(input);
  if (tokenizer->decode(ids) != input) throw std::logic_error("an accepted tokenizer loses text");
} catch (const FormatError&) {
}

}  // namespace strata::test
