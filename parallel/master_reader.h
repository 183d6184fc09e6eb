#pragma once

// Internal to the trainer. Not installed.

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/shard_stretch.h"
#include "parallel/trainer.h"

namespace strata {

/// Reads whole parameters from the shards of all ranks to a sink on rank 0, piece by piece, on
/// lanes of its own: what submits a piece does not wait for it.
///
/// Collective: every rank starts and submits the same at the same place among its collectives. From
/// submit_share() until wait_read() the sections must be stored and must not change.
class MasterReader {
 public:
  /// @param sinks whether start() is given a sink that counts on this rank
  MasterReader(const Model& model, const Partition& partition, ShardStore& store, Dtype compute,
               Communicator& shards, bool sinks);

  /// @pre done()
  void start(std::vector<Parameter> parameters, Dtype precision, ParameterSink sink,
             std::function<void()> finish);
  /// Whether there are pieces left to submit.
  bool busy() const noexcept { return next_ < parameters_.size(); }
  /// Submits one `of`-th of what is left, at least a piece; then `finish`, after the last one.
  void submit_share(int of);
  /// Blocks until nothing reads the sections any more.
  void wait_read() const { read_.wait(); }
  /// Whether `finish` has returned. Rethrows what made it or the sink fail.
  bool done() const;
  /// @pre !busy()
  void wait_done() const { finished_.wait(); }

 private:
  /// As many elements are under way as this many pieces hold.
  static constexpr std::size_t kSlots = 2;
  struct Slot {
    std::vector<float> values;
    Event free;
  };
  std::int64_t submit_piece();
  void submit_finish();
  void drop();

  const Model& model_;
  const Partition& partition_;
  ShardStore& store_;
  Dtype compute_;
  Communicator& shards_;

  std::vector<Parameter> parameters_;
  Dtype precision_ = Dtype::kF32;
  ParameterSink sink_;
  std::function<void()> finish_;
  std::size_t next_ = 0;    // parameter
  std::int64_t begin_ = 0;  // element of it
  std::int64_t left_ = 0;   // elements of all
  std::array<Slot, kSlots> slots_;
  std::size_t turn_ = 0;  // slot
  Event read_;            // the last piece that was submitted has left the sections
  Event finished_;
  std::optional<ShardStretch> stretch_;  // the fetch lane's
  std::unique_ptr<Stream> sink_lane_;    // null where nothing sinks
  std::unique_ptr<Stream> fetch_lane_;
};

}  // namespace strata
