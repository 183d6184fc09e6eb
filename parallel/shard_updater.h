#pragma once

#include <memory>
#include <vector>

#include "optimizer/gradient_norm.h"
#include "optimizer/split.h"
#include "optimizer/update_rule.h"
#include "parallel/lane_clock.h"
#include "parallel/partition.h"
#include "parallel/shard_source.h"
#include "swap/shard_store.h"

namespace strata {

/// What becomes of the gradients of a step, known at the end of its backward phase. Written once,
/// before `known` happens; read only after it.
struct StepDecision {
  UpdateStep step;
  bool skip = false;  ///< gradients were not finite: no section changes
  HostEvent known;
};

/// Streams shards through read, update and write in chunks of constant size, in the order of the
/// jobs: reads run ahead as far as the pool allows, updates run on one lane, writes drain behind.
/// Jobs that only load weights which stay in DRAM overtake the others on a lane of their own.
/// Owns those lanes. submit() never waits; it is not thread-safe.
class ShardUpdater final : public ShardSource {
 public:
  /// Elements per chunk: a multiple of 65,536. At 12 bytes each about 12 MiB.
  static constexpr std::int64_t kChunkNumel = 1 << 20;

  /// @param pool for chunks; holds at least chunk_bytes() bytes
  /// @param threads OpenMP threads of the update lane
  ShardUpdater(const Partition& partition, int shard_rank, Dtype compute, const UpdateRule& rule,
               ShardStore& store, std::span<std::byte> pool, int threads, LaneClock& clock);
  ~ShardUpdater() override;  ///< ends the lanes; unfinished jobs are dropped
  ShardUpdater(const ShardUpdater&) = delete;
  ShardUpdater& operator=(const ShardUpdater&) = delete;

  /// What one chunk takes from the pool at most, when nothing of it is resident.
  static std::size_t chunk_bytes(const ShardLayout& layout);

  bool weights_stay(int part) const override;
  TensorView resident_weights(int part) override;
  Submitted submit(const ShardJob& job) override;

 private:
  struct Chunk;
  struct Job;
  Submitted submit_load(const ShardJob& order);
  void load(const ShardJob& order);
  void read(Job& job);
  void read_chunk(const Job& job, Chunk& chunk);
  void read_weights(const Job& job, Chunk& chunk);
  void take_room(const Job& job, Chunk& chunk, std::size_t bytes);
  /// Whether the weights of a visit are a section as it lies, and not hi and lo joined.
  bool one_section(int part) const { return reads_hi(compute_) || partition_.frozen(part); }
  /// Whether a chunk's weights are read straight into the job's memory.
  bool reads_in_place(const Job& job) const;
  /// What a section of a chunk takes from the pool: nothing where it stays in DRAM.
  std::size_t pool_bytes(SectionKey key, std::int64_t numel) const;
  void update(Job& job);
  void update_chunk(const Job& job, Chunk& chunk);
  void write(Job& job);
  std::uint64_t swapped_bytes(const Chunk& chunk, int part) const;

  const Partition& partition_;
  int rank_;
  Dtype compute_;
  const UpdateRule& rule_;
  ShardStore& store_;
  MemoryPool pool_;
  int threads_;
  LaneClock& clock_;
  std::uint64_t last_read_ns_ = 0;   // the update lane's
  std::uint64_t last_write_ns_ = 0;  // the write lane's
  std::unique_ptr<Stream> read_;
  std::unique_ptr<Stream> update_;
  std::unique_ptr<Stream> write_;
  std::unique_ptr<Stream> load_;
};

}  // namespace strata
