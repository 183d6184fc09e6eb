#include "tests/support/separate_device.h"

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>

#include "core/error.h"
#include "tests/support/separate_ops.h"

namespace strata::test {
namespace {

/// Which untouchable addresses stand for which bytes. Thread-safe.
class Registry {
 public:
  void add(std::byte* address, std::size_t bytes, std::byte* home) {
    const std::lock_guard lock(mutex_);
    ranges_[address] = {bytes, home};
  }
  void remove(std::byte* address) {
    const std::lock_guard lock(mutex_);
    ranges_.erase(address);
  }
  /// Null if the address is none of ours.
  std::byte* find(const void* address) const {
    const auto* wanted = static_cast<const std::byte*>(address);
    const std::lock_guard lock(mutex_);
    auto after = ranges_.upper_bound(const_cast<std::byte*>(wanted));
    if (after == ranges_.begin()) return nullptr;
    const auto& [begin, range] = *--after;
    return wanted < begin + range.bytes ? range.home + (wanted - begin) : nullptr;
  }

 private:
  struct Range {
    std::size_t bytes = 0;
    std::byte* home = nullptr;
  };
  mutable std::mutex mutex_;
  std::map<std::byte*, Range> ranges_;  // guarded by mutex_
};

class SeparateMemory final : public Buffer::Memory {
 public:
  SeparateMemory(Registry& registry, std::size_t bytes)
      : registry_(registry),
        bytes_(bytes),
        home_(allocate_host(bytes)),
        address_(mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    expects(address_ != MAP_FAILED, "there are no addresses left for the memory of a device");
    registry_.add(static_cast<std::byte*>(address_), bytes, home_.data());
  }
  SeparateMemory(const SeparateMemory&) = delete;
  SeparateMemory& operator=(const SeparateMemory&) = delete;
  ~SeparateMemory() override {
    registry_.remove(static_cast<std::byte*>(address_));
    munmap(address_, bytes_);
  }
  void* data() const noexcept override { return address_; }

 private:
  Registry& registry_;
  std::size_t bytes_;
  Buffer home_;
  void* address_;
};

class SeparateCpu final : public SeparateDevice {
 public:
  using SeparateDevice::bytes_of;
  using SeparateDevice::owns;

  explicit SeparateCpu(int threads)
      : cpu_(make_cpu_device(threads)), ops_(make_separate_ops(cpu_->ops(), *this)) {}

  Buffer allocate(std::size_t bytes) override {
    if (bytes == 0) return {};
    return {std::make_unique<SeparateMemory>(registry_, bytes), bytes};
  }
  std::unique_ptr<Stream> make_stream() override { return make_host_stream("device"); }
  Ops& ops() override { return *ops_; }
  bool is_host_accessible() const noexcept override { return false; }
  void copy(ConstTensorView from, TensorView to, Stream& stream) override {
    expects(from.bytes() == to.bytes(), "a copy needs two views of equal size");
    expects(from.empty() || owns(from) || owns(to), "a copy between two pieces of host memory");
    if (from.data() == to.data()) return;
    const void* source = owns(from) ? bytes_of(from).data() : from.data();
    void* target = owns(to) ? bytes_of(to).data() : to.data();
    stream.enqueue([=, bytes = from.bytes()] { std::memcpy(target, source, bytes); });
  }

  bool owns(const void* address) const noexcept override {
    return registry_.find(address) != nullptr;
  }
  ConstTensorView bytes_of(ConstTensorView view) const override {
    if (view.empty()) return view;
    const std::byte* home = registry_.find(view.data());
    expects(home != nullptr, "an operand of the device lies in host memory");
    return {home, view.dtype(), view.shape()};
  }

 private:
  Registry registry_;
  std::unique_ptr<Device> cpu_;
  std::unique_ptr<Ops> ops_;
};

class SeparateCommunicator final : public Communicator {
 public:
  SeparateCommunicator(Communicator& world, const SeparateDevice& device)
      : world_(world), device_(device) {}

  int rank() const noexcept override { return world_.rank(); }
  int size() const noexcept override { return world_.size(); }
  Stream& stream() override { return world_.stream(); }
  void all_gather(ConstTensorView shard, TensorView full) override {
    world_.all_gather(device_.bytes_of(shard), device_.bytes_of(full));
  }
  void reduce_scatter_sum(ConstTensorView full, TensorView shard) override {
    world_.reduce_scatter_sum(device_.bytes_of(full), device_.bytes_of(shard));
  }
  void reduce_sum(ConstTensorView part, TensorView result, int root) override {
    world_.reduce_sum(device_.bytes_of(part), device_.bytes_of(result), root);
  }
  void all_reduce_sum(TensorView values) override {
    world_.all_reduce_sum(device_.bytes_of(values));
  }
  void broadcast(std::span<std::byte> bytes, int root) override { world_.broadcast(bytes, root); }
  double sum(double value) override { return world_.sum(value); }
  double max(double value) override { return world_.max(value); }
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> bytes) override {
    return world_.gather_bytes(bytes);
  }
  void barrier() override { world_.barrier(); }
  void abandon() noexcept override { world_.abandon(); }

 private:
  Communicator& world_;
  const SeparateDevice& device_;
};

}  // namespace

TensorView SeparateDevice::bytes_of(TensorView view) const {
  const ConstTensorView found = bytes_of(ConstTensorView(view));
  return {const_cast<void*>(found.data()), found.dtype(), found.shape()};
}

std::unique_ptr<SeparateDevice> make_separate_device(int threads) {
  return std::make_unique<SeparateCpu>(threads);
}

std::unique_ptr<Communicator> make_separate_communicator(Communicator& world,
                                                         const SeparateDevice& device) {
  return std::make_unique<SeparateCommunicator>(world, device);
}

}  // namespace strata::test
