#pragma once

#include <memory>

#include "core/device.h"
#include "parallel/communicator.h"

namespace strata::test {

/// A CPU that behaves like a GPU: its memory is apart, and its streams are lanes of their own.
///
/// allocate() gives addresses that nobody may touch, so code that follows a pointer to device
/// memory on the host ends with a segmentation fault. The bytes lie elsewhere, where only the
/// device's Ops, Device::copy and a communicator made by make_separate_communicator() find them.
/// Ops refuse operands in host memory with an Error when they are called.
class SeparateDevice : public Device {
 public:
  /// The view with the address of the bytes. An empty view stays empty.
  /// @throws Error if it does not lie in memory of this device
  virtual ConstTensorView bytes_of(ConstTensorView view) const = 0;
  TensorView bytes_of(TensorView view) const;
  bool owns(ConstTensorView view) const noexcept { return owns(view.data()); }
  virtual bool owns(const void* address) const noexcept = 0;
};

std::unique_ptr<SeparateDevice> make_separate_device(int threads);

/// `world` for tensors in the memory of `device`. Spans of bytes are host memory. Both outlive it.
std::unique_ptr<Communicator> make_separate_communicator(Communicator& world,
                                                         const SeparateDevice& device);

}  // namespace strata::test
