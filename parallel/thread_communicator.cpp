#include "parallel/thread_communicator.h"

#include <vector>

#include "parallel/shared_collectives.h"

namespace strata {

class ThreadWorld::Region {
 public:
  Region(int ranks, const CollectiveOptions& options)
      : ranks_(ranks), options_(options), lines_(lines_for(ranks, options)) {}

  int ranks() const noexcept { return ranks_; }
  const CollectiveOptions& options() const noexcept { return options_; }
  std::span<std::byte> bytes() noexcept { return std::as_writable_bytes(std::span(lines_)); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  static std::size_t lines_for(int ranks, const CollectiveOptions& options) {
    return (shared_region_bytes(ranks, options) + sizeof(Line) - 1) / sizeof(Line);
  }

  int ranks_;
  CollectiveOptions options_;
  std::vector<Line> lines_;
};

ThreadWorld::ThreadWorld(int ranks, const CollectiveOptions& options)
    : region_(std::make_unique<Region>(ranks, options)) {}
ThreadWorld::~ThreadWorld() = default;

int ThreadWorld::size() const noexcept { return region_->ranks(); }

std::unique_ptr<Communicator> ThreadWorld::communicator(int rank) {
  return make_lane_communicator(
      make_shared_transport(region_->bytes(), rank, size(), region_->options()));
}

void ThreadWorld::abandon() noexcept { abandon_shared_region(region_->bytes()); }

}  // namespace strata
