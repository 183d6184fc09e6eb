#include "parallel/replicated_communicator.h"

namespace strata {
namespace {

class ReplicatedCommunicator final : public Communicator {
 public:
  explicit ReplicatedCommunicator(Communicator& world) : world_(world) {}

  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  Stream& stream() override { return world_.stream(); }

  void all_gather(ConstTensorView shard, TensorView full) override {
    expects(shard.data() == full.data(), "a shard group of one gathers in place");
  }
  void reduce_scatter_sum(ConstTensorView full, TensorView shard) override {
    expects(shard.data() == full.data(), "a shard group of one reduces in place");
    world_.all_reduce_sum(shard);
  }
  void reduce_sum(ConstTensorView part, TensorView result, int) override {
    reduce_scatter_sum(part, result);
  }
  void all_reduce_sum(TensorView) override {}
  void broadcast(std::span<std::byte>, int) override {}
  double sum(double value) override { return value; }
  double max(double value) override { return value; }
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> bytes) override {
    return {{bytes.begin(), bytes.end()}};
  }
  void barrier() override { world_.barrier(); }
  void abandon() noexcept override { world_.abandon(); }

 private:
  Communicator& world_;
};

}  // namespace

std::unique_ptr<Communicator> make_replicated_communicator(Communicator& world) {
  return std::make_unique<ReplicatedCommunicator>(world);
}

}  // namespace strata
