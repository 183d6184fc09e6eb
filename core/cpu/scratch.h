#pragma once

#include "core/device.h"

namespace strata::cpu {

/// Memory that only grows, for one operation at a time. Its content does not survive growing.
class Scratch {
 public:
  void* at_least(std::size_t bytes) {
    if (bytes > buffer_.bytes()) {
      buffer_ = {};  // the old one goes first: both at once would double the peak
      buffer_ = allocate_host(bytes);
    }
    return buffer_.data();
  }
  std::size_t bytes() const noexcept { return buffer_.bytes(); }

 private:
  Buffer buffer_;
};

}  // namespace strata::cpu
