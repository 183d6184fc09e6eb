#pragma once

#include <cstddef>
#include <memory>

#include "core/stream.h"
#include "core/tensor.h"

namespace strata {

class Ops;

/// Memory of a device, 4096-byte aligned (so that it can also be the target of direct I/O where the
/// host can reach it). Owns it; move-only. Its content is unspecified at first.
class Buffer {
 public:
  class Memory {
   public:
    virtual ~Memory() = default;
    virtual void* data() const noexcept = 0;
  };

  Buffer() = default;
  Buffer(std::unique_ptr<Memory> memory, std::size_t bytes)
      : memory_(std::move(memory)), bytes_(bytes) {}

  std::byte* data() const noexcept {
    return memory_ ? static_cast<std::byte*>(memory_->data()) : nullptr;
  }
  std::size_t bytes() const noexcept { return memory_ ? bytes_ : 0; }
  /// The first shape.numel() elements. @pre they fit
  TensorView view(Dtype dtype, Shape shape) const;

 private:
  std::unique_ptr<Memory> memory_;
  std::size_t bytes_ = 0;
};

/// Where tensors live and blocks are computed. One per rank; outlives everything made by it.
class Device {
 public:
  virtual ~Device() = default;

  virtual Buffer allocate(std::size_t bytes) = 0;  ///< @throws Error naming the size when there is no room
  virtual std::unique_ptr<Stream> make_stream() = 0;
  virtual Ops& ops() = 0;

  /// Whether the host can read and write device memory in place. Where it can, a host buffer may stand
  /// in for a device one and copies between equal addresses cost nothing.
  virtual bool is_host_accessible() const noexcept = 0;
  /// Copies between host and device, either way, ordered on `stream`. Both sides must stay alive until
  /// then; equal addresses are legal and do nothing. @pre equal bytes
  virtual void copy(ConstTensorView from, TensorView to, Stream& stream) = 0;
};

/// The CPU as a device: host memory, an inline stream, OpenMP teams of `threads` threads
/// (0: as many as OpenMP would use). With `batch_invariant`, what linear() gives a row does not
/// depend on the number of rows, to the bit; many rows take longer.
std::unique_ptr<Device> make_cpu_device(int threads = 0, bool batch_invariant = false);

/// Page-aligned host memory for swap buffers and resident sections; given back to the system when it
/// is destroyed. Pages count as used only once they were written; those of large pieces are huge,
/// where the kernel has some.
Buffer allocate_host(std::size_t bytes);

}  // namespace strata
