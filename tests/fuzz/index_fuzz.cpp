#include <algorithm>
#include <stdexcept>

#include "checkpoint/safetensors_header.h"
#include "core/error.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_index(std::string_view input) try {
  const auto entries = parse_safetensors_index(input, "input");
  for (const auto& [tensor, file] : entries) {
    if (file.find('/') != std::string::npos || file == "." || file == "..") {
      throw std::logic_error("an accepted file name leads out of the directory");
    }
  }
  if (!std::is_sorted(entries.begin(), entries.end())) {
    throw std::logic_error("the tensors of an accepted index are not sorted");
  }
} catch (const FormatError&) {
}

}  // namespace strata::test
