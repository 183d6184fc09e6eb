#include "parallel/collective_benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>

#include "core/device.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

/// Seconds of `repeats` calls on the slowest rank; blocks on all.
double time_calls(Communicator& communicator, int repeats, const std::function<void()>& call) {
  communicator.barrier();
  const auto begin = Clock::now();
  for (int i = 0; i < repeats; ++i) call();
  communicator.stream().synchronize();
  return communicator.max(std::chrono::duration<double>(Clock::now() - begin).count());
}

/// 10^9 bytes per second, from as many calls as fit into `seconds`; the first call warms up and
/// says how many that are, the same on every rank.
double rate(Communicator& communicator, std::size_t bytes, double seconds,
            const std::function<void()>& call) {
  const double first = std::max(time_calls(communicator, 1, call), 1e-6);
  const int repeats = static_cast<int>(std::clamp(std::floor(seconds / first), 1.0, 1e6));
  const double total = time_calls(communicator, repeats, call);
  return static_cast<double>(bytes) * repeats / std::max(total, 1e-9) / 1e9;
}

}  // namespace

std::vector<CollectiveRates> measure_collectives(Communicator& communicator,
                                                 std::span<const std::size_t> block_bytes,
                                                 double seconds) {
  std::vector<CollectiveRates> rates;
  if (block_bytes.empty()) return rates;
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const std::size_t largest = *std::max_element(block_bytes.begin(), block_bytes.end());
  const Buffer full = allocate_host(largest);
  const Buffer copy = allocate_host(largest);
  std::memset(full.data(), 0, largest);
  std::memset(copy.data(), 0, largest);
  for (const std::size_t size : block_bytes) {
    const std::size_t numel = size / sizeof(float) / ranks;
    expects(numel > 0, "a block must hold at least one number for every rank");
    const auto part = static_cast<std::int64_t>(numel);
    const std::size_t bytes = numel * ranks * sizeof(float);
    const TensorView block = full.view(Dtype::kF32, Shape{part * communicator.size()});
    const TensorView shard = copy.view(Dtype::kF32, Shape{part});
    CollectiveRates measured{.block_bytes = bytes};
    measured.all_gather =
        rate(communicator, bytes, seconds, [&] { communicator.all_gather(shard, block); });
    measured.reduce_scatter =
        rate(communicator, bytes, seconds, [&] { communicator.reduce_scatter_sum(block, shard); });
    measured.memcpy = rate(communicator, bytes, seconds, [&] {
      communicator.stream().enqueue([&] { std::memcpy(copy.data(), full.data(), bytes); });
    });
    rates.push_back(measured);
  }
  return rates;
}

}  // namespace strata
