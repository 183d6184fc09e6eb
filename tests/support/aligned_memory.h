#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "swap/io_engine.h"

namespace strata::test {

/// Host memory that transfers may use, zero at first.
class AlignedMemory {
 public:
  explicit AlignedMemory(std::size_t bytes)
      : bytes_(bytes), data_(static_cast<std::byte*>(std::aligned_alloc(kIoAlignment, bytes))) {
    if (!data_) throw std::bad_alloc();
    for (std::byte& byte : span()) byte = std::byte{0};
  }
  std::span<std::byte> span() const noexcept { return {data_.get(), bytes_}; }
  /// Bytes that tell where they belong: they differ with `seed` and with the position.
  void fill(std::uint64_t seed) const {
    std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (std::byte& byte : span()) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<std::byte>(state >> 56);
    }
  }
  bool operator==(const AlignedMemory& other) const {
    return std::equal(span().begin(), span().end(), other.span().begin(), other.span().end());
  }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::size_t bytes_;
  std::unique_ptr<std::byte[], Free> data_;
};

}  // namespace strata::test
