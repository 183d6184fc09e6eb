#include <omp.h>

#include <cstring>

#include "core/cpu/cpu_ops.h"
#include "core/device.h"

namespace strata {
namespace {

class CpuDevice final : public Device {
 public:
  CpuDevice(int threads, bool batch_invariant) : ops_(threads, batch_invariant) {}

  Buffer allocate(std::size_t bytes) override { return allocate_host(bytes); }
  std::unique_ptr<Stream> make_stream() override { return make_inline_stream(); }
  Ops& ops() override { return ops_; }

  bool is_host_accessible() const noexcept override { return true; }
  void copy(ConstTensorView from, TensorView to, Stream& stream) override {
    expects(from.bytes() == to.bytes(), "a copy needs two views of equal size");
    if (from.data() == to.data() || from.bytes() == 0) return;
    stream.enqueue([=] { std::memcpy(to.data(), from.data(), from.bytes()); });
  }

 private:
  cpu::CpuOps ops_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(int threads, bool batch_invariant) {
  expects(threads >= 0, "the number of threads of a CPU device must be 0 (automatic) or more");
  return std::make_unique<CpuDevice>(threads > 0 ? threads : omp_get_max_threads(),
                                     batch_invariant);
}

}  // namespace strata
