#include "parallel/shared_collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "core/units.h"
#include "parallel/futex.h"
#include "parallel/ordered_sum.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;
using Word = std::uint32_t;

constexpr std::size_t kLine = 64;
// About two microseconds: what a peer that is already running may need. Then the waiter sleeps.
constexpr int kSpins = 64;
// How often a sleeping rank looks for a group that was abandoned.
constexpr auto kSlice = std::chrono::milliseconds(100);

enum class Operation : std::uint32_t { kAllGather = 1, kReduceScatter, kReduce, kBroadcast };

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kAllGather:
      return "all_gather";
    case Operation::kReduceScatter:
      return "reduce_scatter_sum";
    case Operation::kReduce:
      return "reduce_sum";
    case Operation::kBroadcast:
      return "broadcast";
  }
  return "unknown operation";
}

// What a rank is doing, written beside every piece so that ranks that disagree notice it.
struct Call {
  Operation operation = Operation::kAllGather;
  std::uint32_t root = 0;
  std::uint64_t bytes = 0;  // of one rank's part

  bool operator==(const Call&) const = default;
  std::string to_string() const {
    return fmt::format("{} of {} bytes (root {})", name_of(operation), bytes, root);
  }
};

// One rank's progress. Counters count pieces since the group began and wrap around. Only their rank
// writes them; everybody may sleep on them.
struct alignas(kLine) Progress {
  Word filled;    // pieces this rank has put into its window
  Word consumed;  // pieces this rank no longer needs from anybody
  Word sleepers;  // ranks asleep on either counter
  Call calls[2];  // of the pieces in the two halves of the window
};

struct alignas(kLine) Header {
  Word abandoned;
};

bool reached(Word counter, Word target) { return static_cast<std::int32_t>(counter - target) >= 0; }

std::atomic_ref<Word> atomic(Word& word) { return std::atomic_ref<Word>(word); }

void pause() { __builtin_ia32_pause(); }

class SharedTransport final : public Transport {
 public:
  SharedTransport(std::span<std::byte> region, int rank, int size, const CollectiveOptions& options)
      : rank_(rank),
        size_(size),
        piece_(round_up(options.piece_bytes, kLine)),
        timeout_(options.timeout),
        header_(reinterpret_cast<Header*>(region.data())),
        progress_(reinterpret_cast<Progress*>(header_ + 1)),
        windows_(reinterpret_cast<std::byte*>(progress_ + size)) {
    expects(rank >= 0 && rank < size, "the rank of a shared-memory group is outside it");
    expects(reinterpret_cast<std::uintptr_t>(region.data()) % kLine == 0 &&
                region.size() >= shared_region_bytes(size, options),
            "the region of a shared-memory group is too small or not aligned");
    for (int peer = 0; peer < size; ++peer) {
      if (peer != rank) peers_.push_back(peer);
    }
    parts_.resize(static_cast<std::size_t>(size));
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  void all_gather(const std::byte* shard, std::byte* full, std::size_t bytes) override {
    std::byte* mine = full + at(rank_) * bytes;
    if (mine != shard && bytes > 0) std::memcpy(mine, shard, bytes);
    const auto fill = [&](std::byte* window, std::size_t begin, std::size_t count) {
      std::memcpy(window, shard + begin, count);
    };
    const auto consume = [&](std::size_t half, std::size_t begin, std::size_t count) {
      for (const int peer : peers_) {
        std::memcpy(full + at(peer) * bytes + begin, window(peer, half), count);
      }
    };
    run({Operation::kAllGather, 0, bytes}, piece_, peers_, fill, consume);
  }

  void reduce_scatter_sum(const float* full, float* shard, std::size_t numel) override {
    // A piece of the window holds a stretch of every rank's range, one behind the other.
    const std::size_t step = std::max<std::size_t>(1, piece_ / sizeof(float) / at(size_));
    const auto fill = [&](std::byte* to, std::size_t begin, std::size_t count) {
      for (const int peer : peers_) {
        std::memcpy(to + at(peer) * count, full + at(peer) * numel + begin / sizeof(float), count);
      }
    };
    const auto consume = [&](std::size_t half, std::size_t begin, std::size_t count) {
      const std::size_t offset = begin / sizeof(float);
      for (const int peer : peers_) {
        parts_[at(peer)] = reinterpret_cast<const float*>(window(peer, half) + at(rank_) * count);
      }
      parts_[at(rank_)] = full + at(rank_) * numel + offset;
      ordered_sum(parts_, shard + offset, count / sizeof(float));
    };
    run({Operation::kReduceScatter, 0, numel * sizeof(float)}, step * sizeof(float), peers_, fill,
        consume);
  }

  void reduce_sum(const float* part, float* result, std::size_t numel, int root) override {
    const auto fill = [&](std::byte* to, std::size_t begin, std::size_t count) {
      if (rank_ != root) std::memcpy(to, part + begin / sizeof(float), count);
    };
    const auto consume = [&](std::size_t half, std::size_t begin, std::size_t count) {
      if (rank_ != root) return;
      const std::size_t offset = begin / sizeof(float);
      for (const int peer : peers_) {
        parts_[at(peer)] = reinterpret_cast<const float*>(window(peer, half));
      }
      parts_[at(rank_)] = part + offset;
      ordered_sum(parts_, result + offset, count / sizeof(float));
    };
    run({Operation::kReduce, static_cast<std::uint32_t>(root), numel * sizeof(float)}, piece_,
        rank_ == root ? peers_ : std::vector<int>{}, fill, consume);
  }

  void broadcast(std::byte* bytes, std::size_t count, int root) override {
    const auto fill = [&](std::byte* to, std::size_t begin, std::size_t piece) {
      if (rank_ == root) std::memcpy(to, bytes + begin, piece);
    };
    const auto consume = [&](std::size_t half, std::size_t begin, std::size_t piece) {
      if (rank_ != root) std::memcpy(bytes + begin, window(root, half), piece);
    };
    run({Operation::kBroadcast, static_cast<std::uint32_t>(root), count}, piece_,
        rank_ == root ? std::vector<int>{} : std::vector<int>{root}, fill, consume);
  }

  void abandon() noexcept override { abandoned_.store(true); }

 private:
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

  std::byte* window(int rank, std::size_t half) {
    return windows_ + (2 * at(rank) + half) * piece_;
  }

  /// Cuts `call.bytes` into pieces of `step`. Piece i+1 is filled before piece i is consumed, so
  /// that a rank that is early has something to do. `sources` are the ranks whose pieces are
  /// consumed.
  template <typename Fill, typename Consume>
  void run(const Call& call, std::size_t step, const std::vector<int>& sources, const Fill& fill,
           const Consume& consume) {
    const std::size_t pieces = (call.bytes + step - 1) / step;
    const auto count_of = [&](std::size_t i) { return std::min(step, call.bytes - i * step); };
    const auto put = [&](std::size_t i) {
      const Word number = next_ + static_cast<Word>(i);
      for (const int peer : peers_) await(peer, &Progress::consumed, number - 1, call);
      progress_[rank_].calls[number % 2] = call;
      fill(window(rank_, number % 2), i * step, count_of(i));
      publish(progress_[rank_].filled, number + 1);
    };
    if (pieces > 0) put(0);
    for (std::size_t i = 0; i < pieces; ++i) {
      if (i + 1 < pieces) put(i + 1);
      const Word number = next_ + static_cast<Word>(i);
      for (const int peer : sources) {
        await(peer, &Progress::filled, number + 1, call);
        agree(peer, progress_[peer].calls[number % 2], call);
      }
      consume(number % 2, i * step, count_of(i));
      publish(progress_[rank_].consumed, number + 1);
    }
    next_ += static_cast<Word>(pieces);
  }

  void publish(Word& word, Word value) {
    atomic(word).store(value);
    // Either a sleeper sees the new value, or it is counted here: both sides are sequentially
    // consistent, so they cannot miss each other.
    if (atomic(progress_[rank_].sleepers).load() != 0) wake_all(word);
  }

  void await(int peer, Word Progress::*counter, Word target, const Call& call) {
    Word& word = progress_[peer].*counter;
    for (int spin = 0; spin < kSpins; ++spin) {
      if (reached(atomic(word).load(std::memory_order_acquire), target)) return;
      pause();
    }
    atomic(progress_[peer].sleepers).fetch_add(1);
    const auto deadline = Clock::now() + timeout_;
    for (Word seen = atomic(word).load(); !reached(seen, target); seen = atomic(word).load()) {
      if (abandoned_.load() || atomic(header_->abandoned).load() != 0) {
        throw Error(fmt::format("{} was abandoned because of an earlier error", call.to_string()));
      }
      if (Clock::now() >= deadline) throw Error(late(counter, target, call));
      sleep_while(word, seen, std::min<std::chrono::nanoseconds>(kSlice, timeout_));
    }
    atomic(progress_[peer].sleepers).fetch_sub(1);
  }

  void agree(int peer, const Call& theirs, const Call& mine) const {
    if (theirs == mine) return;
    throw Error(fmt::format(
        "ranks disagree about the next collective: rank {} calls {}, rank {} calls {}; every rank "
        "must make the same calls in the same order",
        rank_, mine.to_string(), peer, theirs.to_string()));
  }

  std::string late(Word Progress::*counter, Word target, const Call& call) {
    std::string ranks;
    for (const int peer : peers_) {
      if (reached(atomic(progress_[peer].*counter).load(), target)) continue;
      ranks += fmt::format("{}{}", ranks.empty() ? "" : ", ", peer);
    }
    return fmt::format(
        "{} on rank {} waited {:.1f} s for rank {}: it hangs, or works longer than the timeout "
        "allows (--strata.timeout)",
        call.to_string(), rank_, std::chrono::duration<double>(timeout_).count(), ranks);
  }

  int rank_;
  int size_;
  std::size_t piece_;
  std::chrono::milliseconds timeout_;
  Header* header_;
  Progress* progress_;  // [size]
  std::byte* windows_;  // [size][2][piece_]
  std::vector<int> peers_;
  std::vector<const float*> parts_;  // scratch of the sums
  Word next_ = 0;                    // number of the next piece; the same on every rank
  std::atomic<bool> abandoned_ = false;
};

}  // namespace

std::size_t shared_region_bytes(int ranks, const CollectiveOptions& options) {
  expects(ranks > 0, "a group needs at least one rank");
  const auto count = static_cast<std::size_t>(ranks);
  expects(options.piece_bytes / sizeof(float) >= count,
          "a staging piece must hold at least one number for every rank");
  return sizeof(Header) + count * (sizeof(Progress) + 2 * round_up(options.piece_bytes, kLine));
}

std::unique_ptr<Transport> make_shared_transport(std::span<std::byte> region, int rank, int size,
                                                 const CollectiveOptions& options) {
  return std::make_unique<SharedTransport>(region, rank, size, options);
}

void abandon_shared_region(std::span<std::byte> region) noexcept {
  atomic(reinterpret_cast<Header*>(region.data())->abandoned).store(1);
}

}  // namespace strata
