#include "parallel/mpi/message_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/ordered_sum.h"

namespace strata::mpi {
namespace {

using Clock = std::chrono::steady_clock;

// A message that is on its way arrives within the eager polls or is worth sleeping for.
constexpr auto kEager = std::chrono::microseconds(20);
constexpr auto kSleep = std::chrono::microseconds(50);
// Sums keep two pieces per rank in memory; beyond this many ranks the pieces shrink instead.
constexpr std::size_t kRanksAtFullPiece = 16;
constexpr int kTags = 32768;   // what every MPI has
constexpr int kSomeRank = -1;  // the peer of a collective message

std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

struct Call {
  const char* name;
  std::size_t bytes;
};

// Messages in flight, and with whom.
struct Flight {
  std::vector<MPI_Request> requests;
  std::vector<int> peers;

  MPI_Request* add(int peer) {
    peers.push_back(peer);
    return &requests.emplace_back(MPI_REQUEST_NULL);
  }
};

class MessageTransport final : public Transport {
 public:
  MessageTransport(Group group, const CollectiveOptions& options)
      : group_(std::move(group)),
        timeout_(options.timeout),
        limit_(options.largest_message_bytes),
        piece_(piece_elements(group_.size(), options)),
        parts_(at(group_.size())) {
    expects(limit_ >= sizeof(float) && limit_ < (std::size_t{1} << 31),
            "the largest MPI message must hold a number and stay below 2^31 bytes");
  }

  int rank() const noexcept override { return group_.rank(); }
  int size() const noexcept override { return group_.size(); }

  /// A ring: every part passes every rank once, so it crosses each link between nodes once.
  void all_gather(const std::byte* shard, std::byte* full, std::size_t bytes) override {
    const Call call = begin("all_gather", bytes);
    std::byte* mine = full + at(rank()) * bytes;
    if (mine != shard && bytes > 0) std::memcpy(mine, shard, bytes);
    const int right = (rank() + 1) % size();
    const int left = (rank() + size() - 1) % size();
    for (int hop = 0; hop + 1 < size(); ++hop) {
      const int sent = (rank() + size() - hop) % size();
      const int received = (left + size() - hop) % size();
      Flight flight;
      receive(full + at(received) * bytes, bytes, left, flight);
      send(full + at(sent) * bytes, bytes, right, flight);
      wait(flight, call);
    }
  }

  void reduce_scatter_sum(const float* full, float* shard, std::size_t numel) override {
    const Call call = begin("reduce_scatter_sum", numel * sizeof(float));
    const float* mine = full + at(rank()) * numel;
    const auto post = [&](std::size_t first, std::size_t count, std::size_t half, Flight& flight) {
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        receive(staged(peer, half), count * sizeof(float), peer, flight);
        send(full + at(peer) * numel + first, count * sizeof(float), peer, flight);
      }
    };
    const auto sum = [&](std::size_t first, std::size_t count, std::size_t half) {
      add_up(mine + first, shard + first, count, half);
    };
    run(call, numel, post, sum);
  }

  void reduce_sum(const float* part, float* result, std::size_t numel, int root) override {
    const Call call = begin("reduce_sum", numel * sizeof(float));
    const auto post = [&](std::size_t first, std::size_t count, std::size_t half, Flight& flight) {
      if (rank() != root) return send(part + first, count * sizeof(float), root, flight);
      for (int peer = 0; peer < size(); ++peer) {
        if (peer != root) receive(staged(peer, half), count * sizeof(float), peer, flight);
      }
    };
    const auto sum = [&](std::size_t first, std::size_t count, std::size_t half) {
      if (rank() == root) add_up(part + first, result + first, count, half);
    };
    run(call, numel, post, sum);
  }

  void broadcast(std::byte* bytes, std::size_t count, int root) override {
    const Call call = begin("broadcast", count);
    for (std::size_t done = 0; done < count; done += limit_) {
      Flight flight;
      const int length = static_cast<int>(std::min(limit_, count - done));
      check(MPI_Ibcast(bytes + done, length, MPI_BYTE, root, group_.get(),
                       flight.add(rank() == root ? kSomeRank : root)),
            "broadcast");
      wait(flight, call);
    }
  }

  void abandon() noexcept override { abandoned_.store(true); }

 private:
  static std::size_t piece_elements(int ranks, const CollectiveOptions& options) {
    const std::size_t share = options.piece_bytes * kRanksAtFullPiece / at(ranks);
    const std::size_t bytes = std::min({options.piece_bytes, share, options.largest_message_bytes});
    return std::max<std::size_t>(1, bytes / sizeof(float));
  }

  /// Every collective has a tag of its own: ranks that disagree about the order do not mix them up.
  Call begin(const char* name, std::size_t bytes) {
    tag_ = (tag_ + 1) % kTags;
    return {name, bytes};
  }

  /// Messages with one peer and one tag arrive in the order they were sent, so what is too large
  /// for one simply becomes several.
  template <typename Message>
  void in_messages(std::size_t bytes, const Message& message) const {
    for (std::size_t done = 0; done < bytes; done += limit_) {
      message(done, static_cast<int>(std::min(limit_, bytes - done)));
    }
  }
  void send(const void* data, std::size_t bytes, int peer, Flight& flight) const {
    in_messages(bytes, [&](std::size_t done, int length) {
      check(MPI_Isend(static_cast<const std::byte*>(data) + done, length, MPI_BYTE, peer, tag_,
                      group_.get(), flight.add(peer)),
            "send a piece of a collective");
    });
  }
  void receive(void* data, std::size_t bytes, int peer, Flight& flight) const {
    in_messages(bytes, [&](std::size_t done, int length) {
      check(MPI_Irecv(static_cast<std::byte*>(data) + done, length, MPI_BYTE, peer, tag_,
                      group_.get(), flight.add(peer)),
            "receive a piece of a collective");
    });
  }

  /// Piece i+1 travels while piece i is summed.
  template <typename Post, typename Sum>
  void run(const Call& call, std::size_t numel, const Post& post, const Sum& sum) {
    const std::size_t pieces = (numel + piece_ - 1) / piece_;
    if (staging_.empty() && pieces > 0) staging_.resize(2 * at(size()) * piece_);
    const auto count_of = [&](std::size_t i) { return std::min(piece_, numel - i * piece_); };
    std::array<Flight, 2> flights;
    if (pieces > 0) post(0, count_of(0), 0, flights[0]);
    for (std::size_t i = 0; i < pieces; ++i) {
      if (i + 1 < pieces)
        post((i + 1) * piece_, count_of(i + 1), (i + 1) % 2, flights[(i + 1) % 2]);
      wait(flights[i % 2], call);
      flights[i % 2] = {};
      sum(i * piece_, count_of(i), i % 2);
    }
  }

  float* staged(int peer, std::size_t half) {
    return staging_.data() + (2 * at(peer) + half) * piece_;
  }
  void add_up(const float* mine, float* result, std::size_t count, std::size_t half) {
    for (int peer = 0; peer < size(); ++peer) {
      parts_[at(peer)] = peer == rank() ? mine : staged(peer, half);
    }
    ordered_sum(parts_, result, count);
  }

  void wait(Flight& flight, const Call& call) const {
    const auto start = Clock::now();
    for (;;) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(flight.requests.size()), flight.requests.data(), &done,
                        MPI_STATUSES_IGNORE),
            call.name);
      if (done != 0) return;
      if (abandoned_.load()) {
        throw Error(fmt::format("{} of {} bytes was abandoned because of an earlier error",
                                call.name, call.bytes));
      }
      const auto waited = Clock::now() - start;
      if (waited >= timeout_) throw Error(late(flight, call));
      if (waited > kEager) std::this_thread::sleep_for(kSleep);
    }
  }

  std::string late(const Flight& flight, const Call& call) const {
    std::vector<int> missing;
    for (std::size_t i = 0; i < flight.requests.size(); ++i) {
      int done = 0;
      check(MPI_Request_get_status(flight.requests[i], &done, MPI_STATUS_IGNORE), call.name);
      if (done == 0) missing.push_back(flight.peers[i]);
    }
    std::sort(missing.begin(), missing.end());
    missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
    std::string ranks;
    for (const int peer : missing) {
      ranks += ranks.empty() ? "" : ", ";
      ranks += peer == kSomeRank ? "another" : std::to_string(peer);
    }
    return fmt::format(
        "{} of {} bytes on rank {} waited {:.1f} s for rank {}: it hangs, or works longer than the "
        "timeout allows (--strata.timeout)",
        call.name, call.bytes, rank(), std::chrono::duration<double>(timeout_).count(), ranks);
  }

  Group group_;
  std::chrono::milliseconds timeout_;
  std::size_t limit_;           // bytes of one message
  std::size_t piece_;           // elements of one piece of a sum
  std::vector<float> staging_;  // [size, 2, piece_], once a sum needs it
  std::vector<const float*> parts_;
  int tag_ = 0;
  std::atomic<bool> abandoned_ = false;
};

}  // namespace

std::unique_ptr<Transport> make_message_transport(Group group, const CollectiveOptions& options) {
  return std::make_unique<MessageTransport>(std::move(group), options);
}

}  // namespace strata::mpi
