#include "parallel/mpi/mpi_communicator.h"

#include <fmt/format.h>

#include <utility>

#include "parallel/mpi/message_transport.h"
#include "parallel/mpi/mpi_group.h"
#include "parallel/mpi/node_memory.h"
#include "parallel/shared_collectives.h"

namespace strata {
namespace {

// The shared-memory transport together with the memory it runs in.
class NodeTransport final : public Transport {
 public:
  NodeTransport(const mpi::Group& node, const CollectiveOptions& options)
      : memory_(node, shared_region_bytes(node.size(), options)),
        shared_(make_shared_transport(memory_.bytes(), node.rank(), node.size(), options)) {}

  int rank() const noexcept override { return shared_->rank(); }
  int size() const noexcept override { return shared_->size(); }
  void all_gather(const std::byte* shard, std::byte* full, std::size_t bytes) override {
    shared_->all_gather(shard, full, bytes);
  }
  void reduce_scatter_sum(const float* full, float* shard, std::size_t numel) override {
    shared_->reduce_scatter_sum(full, shard, numel);
  }
  void reduce_sum(const float* part, float* result, std::size_t numel, int root) override {
    shared_->reduce_sum(part, result, numel, root);
  }
  void broadcast(std::byte* bytes, std::size_t count, int root) override {
    shared_->broadcast(bytes, count, root);
  }
  void abandon() noexcept override { shared_->abandon(); }

 private:
  mpi::NodeMemory memory_;
  std::unique_ptr<Transport> shared_;
};

std::unique_ptr<Transport> make_transport(MpiRoute route, const CollectiveOptions& options) {
  mpi::Group world = mpi::Group::duplicate(MPI_COMM_WORLD);
  if (route == MpiRoute::kMessages) return mpi::make_message_transport(std::move(world), options);
  const mpi::Group node = mpi::Group::on_this_node(world);
  if (node.size() == world.size()) return std::make_unique<NodeTransport>(node, options);
  if (route == MpiRoute::kAuto) return mpi::make_message_transport(std::move(world), options);
  throw UsageError(fmt::format(
      "shared-memory collectives were asked for, but only {} of {} ranks are on the node "
      "of rank {}; use --strata.collectives=auto",
      node.size(), world.size(), world.rank()));
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MpiRoute route,
                                                    const CollectiveOptions& options) {
  int provided = MPI_THREAD_SINGLE;
  mpi::check(MPI_Query_thread(&provided), "tell its level of thread support");
  expects(
      provided >= MPI_THREAD_SERIALIZED,
      "MPI must be initialised with MPI_THREAD_SERIALIZED (MPI_Init_thread): collectives run on a "
      "thread of their own");
  return make_lane_communicator(make_transport(route, options));
}

}  // namespace strata
