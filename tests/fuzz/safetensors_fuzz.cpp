#include <cstdint>
#include <stdexcept>

#include "checkpoint/safetensors_header.h"
#include "core/error.h"
#include "tests/fuzz/targets.h"

namespace strata::test {

void fuzz_safetensors(std::string_view input) try {
  const std::uint64_t header = safetensors_header_bytes(input.substr(0, 8), input.size(), "input");
  std::uint64_t covered = 8 + header;
  for (const SafetensorsTensor& tensor :
       parse_safetensors_header(input.substr(8, header), input.size(), "input")) {
    if (tensor.begin > input.size() || tensor.bytes > input.size() - tensor.begin) {
      throw std::logic_error("a tensor that was accepted leaves the file");
    }
    const auto elements = static_cast<std::uint64_t>(tensor.numel());
    if (elements * static_cast<std::uint64_t>(tensor.type->bits) != 8 * tensor.bytes) {
      throw std::logic_error("a tensor that was accepted has another size than its shape");
    }
    covered += tensor.bytes;
  }
  if (covered != input.size()) throw std::logic_error("an accepted file is not covered exactly");
} catch (const FormatError&) {
}

}  // namespace strata::test
