#include "parallel/stored_range.h"

#include <cstring>

#include "parallel/rounding.h"

namespace strata {

bool is_kept_as(Dtype stored, Dtype kept) {
  return is_quantized(kept) ? stored == kept : !is_quantized(stored);
}

FileReader::Range stored_range(int file, std::uint64_t offset, Dtype stored, TensorView target) {
  return {.file = file,
          .offset = offset,
          .bytes = storage_bytes(stored, target.numel()),
          .take = [target, stored](std::uint64_t begin, std::span<const std::byte> bytes) {
            if (stored == target.dtype()) {
              std::memcpy(static_cast<std::byte*>(target.data()) + begin, bytes.data(),
                          bytes.size());
              return;
            }
            const std::size_t width = size_bytes(stored);
            round_to(bytes.data(), stored,
                     target.flat(static_cast<std::int64_t>(begin / width),
                                 static_cast<std::int64_t>(bytes.size() / width)));
          }};
}

}  // namespace strata
