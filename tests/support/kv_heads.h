#pragma once

#include <cstdint>
#include <ostream>

#include "core/dtype.h"

namespace strata::test {

/// Heads of an attention over pages.
struct KvHeads {
  Dtype pages = Dtype::kBf16;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t head_size = 64;
  std::int64_t window = 0;
};

inline std::ostream& operator<<(std::ostream& out, const KvHeads& heads) {
  return out << name(heads.pages) << ", " << heads.heads << "/" << heads.kv_heads << " of "
             << heads.head_size << ", window " << heads.window;
}

}  // namespace strata::test
