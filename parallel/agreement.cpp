#include "parallel/agreement.h"

#include <algorithm>

#include "core/error.h"

namespace strata {

void expect_agreement(Communicator& communicator, std::span<const std::uint64_t> facts) {
  const std::span<const std::byte> own = std::as_bytes(facts);
  for (const std::vector<std::byte>& other : communicator.gather_bytes(own)) {
    if (!std::ranges::equal(other, own)) {
      throw UsageError("the ranks were started with different models or options");
    }
  }
}

}  // namespace strata
