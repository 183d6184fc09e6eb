#include <cstddef>
#include <cstdint>

#include "tests/fuzz/targets.h"

// STRATA_FUZZ_TARGET is one function of targets.h; the build makes one program of each.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  strata::test::STRATA_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
