#include <algorithm>
#include <cstring>
#include <utility>

#include "parallel/ordered_sum.h"
#include "parallel/transport.h"

namespace strata {
namespace {

template <typename T>
std::byte* bytes_of(T* values) {
  return reinterpret_cast<std::byte*>(values);
}
template <typename T>
const std::byte* bytes_of(const T* values) {
  return reinterpret_cast<const std::byte*>(values);
}

class LaneCommunicator final : public Communicator {
 public:
  explicit LaneCommunicator(std::unique_ptr<Transport> transport)
      : transport_(std::move(transport)), lane_(make_host_stream("collectives")) {}

  int rank() const noexcept override { return transport_->rank(); }
  int size() const noexcept override { return transport_->size(); }
  Stream& stream() override { return *lane_; }
  void abandon() noexcept override { transport_->abandon(); }

  void all_gather(ConstTensorView shard, TensorView full) override {
    expects(shard.dtype() == full.dtype(), "all_gather: the two tensors have different dtypes");
    expects(full.numel() == shard.numel() * size(),
            "all_gather: `full` must hold one shard for every rank");
    lane_->enqueue([this, shard, full] {
      transport_->all_gather(bytes_of(shard.data()), bytes_of(full.data()), shard.bytes());
    });
  }

  void reduce_scatter_sum(ConstTensorView full, TensorView shard) override {
    expects(full.numel() == shard.numel() * size(),
            "reduce_scatter_sum: `full` must hold one shard for every rank");
    const float* from = full.as<float>();
    float* to = shard.as<float>();
    lane_->enqueue([this, from, to, numel = numel_of(shard)] {
      transport_->reduce_scatter_sum(from, to, numel);
    });
  }

  void reduce_sum(ConstTensorView part, TensorView result, int root) override {
    expects_root(root);
    const float* from = part.as<float>();
    float* to = nullptr;
    if (rank() == root) {
      expects(result.numel() == part.numel(), "reduce_sum: part and result differ in size");
      to = result.as<float>();
    }
    lane_->enqueue([this, from, to, numel = numel_of(part), root] {
      transport_->reduce_sum(from, to, numel, root);
    });
  }

  void all_reduce_sum(TensorView values) override {
    float* data = values.as<float>();
    lane_->enqueue([this, data, numel = numel_of(values)] { all_reduce(data, numel); });
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    expects_root(root);
    lane_->enqueue(
        [this, bytes, root] { transport_->broadcast(bytes.data(), bytes.size(), root); });
  }

  double sum(double value) override {
    double total = 0;
    for (const double part : gather(value)) total += part;
    return total;
  }

  double max(double value) override {
    const std::vector<double> parts = gather(value);
    // A NaN on any rank is everybody's result: std::max would lose it or not by its rank.
    for (const double part : parts) {
      if (part != part) return part;
    }
    return *std::max_element(parts.begin(), parts.end());
  }

  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> bytes) override {
    const std::vector<std::size_t> lengths = gather(bytes.size());
    const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
    std::vector<std::byte> padded(longest);
    if (!bytes.empty()) std::memcpy(padded.data(), bytes.data(), bytes.size());
    std::vector<std::byte> all(longest * lengths.size());
    lane_->enqueue([&] { transport_->all_gather(padded.data(), all.data(), longest); });
    lane_->synchronize();

    std::vector<std::vector<std::byte>> result;
    result.reserve(lengths.size());
    auto begin = all.begin();
    for (const std::size_t length : lengths) {
      result.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(length));
      begin += static_cast<std::ptrdiff_t>(longest);
    }
    return result;
  }

  void barrier() override { gather(std::byte{}); }

 private:
  static std::size_t numel_of(const ConstTensorView& view) {
    return static_cast<std::size_t>(view.numel());
  }

  void expects_root(int root) const {
    expects(root >= 0 && root < size(), "the root of a collective is not a rank of the group");
  }

  /// Blocks. What every rank passed, by rank.
  template <typename T>
  std::vector<T> gather(T value) {
    std::vector<T> all(static_cast<std::size_t>(size()));
    lane_->enqueue(
        [&] { transport_->all_gather(bytes_of(&value), bytes_of(all.data()), sizeof(T)); });
    lane_->synchronize();
    return all;
  }

  /// Every element is summed by one rank and sent to the others, so all of them have its bits; what
  /// cannot be dealt out evenly (fewer elements than ranks) is summed by everybody.
  void all_reduce(float* values, std::size_t numel) {
    const auto ranks = static_cast<std::size_t>(size());
    const std::size_t share = numel / ranks;
    float* mine = values + share * static_cast<std::size_t>(rank());
    transport_->reduce_scatter_sum(values, mine, share);
    transport_->all_gather(bytes_of(mine), bytes_of(values), share * sizeof(float));

    float* tail = values + share * ranks;
    const std::size_t left = numel - share * ranks;
    std::vector<float> tails(left * ranks);
    transport_->all_gather(bytes_of(tail), bytes_of(tails.data()), left * sizeof(float));
    std::vector<const float*> parts(ranks);
    for (std::size_t r = 0; r < ranks; ++r) parts[r] = tails.data() + r * left;
    ordered_sum(parts, tail, left);
  }

  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Stream> lane_;  // last: finishes its work before the transport goes
};

}  // namespace

std::unique_ptr<Communicator> make_lane_communicator(std::unique_ptr<Transport> transport) {
  return std::make_unique<LaneCommunicator>(std::move(transport));
}

}  // namespace strata
