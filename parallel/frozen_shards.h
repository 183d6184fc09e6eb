#pragma once

// Internal to the generator. Not installed.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "parallel/generation_plan.h"
#include "parallel/parameter_values.h"
#include "parallel/shard_source.h"
#include "swap/file_reader.h"

namespace strata {

/// This rank's shards of a model nothing of which is trained: in memory, in the model's own files,
/// or in a copy on swap. The copy of a table that is looked up there is not of a shard, but whole.
class FrozenShards final : public ShardSource {
 public:
  struct Sources {
    const ParameterSource& values;
    const ParameterLocator& locator;
  };
  /// By part: the bytes of rank `rank`'s shard in files, where all parameters of the part lie in
  /// files as they are.
  static std::vector<std::optional<std::uint64_t>> in_files(const Partition& partition, int rank,
                                                            Dtype compute,
                                                            const ParameterLocator& locator);

  /// Fills what does not lie in files as it is wanted, in memory and on swap; blocks until that is
  /// done. What stays and lies in files is read when it is first needed.
  /// @param engine,pool of the FileReader. @param swap for copies; null where there are none
  /// @throws IoError, and what `values` throws
  FrozenShards(const Partition& partition, int rank, Dtype compute, const GenerationPlan& plan,
               const Sources& sources, IoEngine& engine, std::unique_ptr<SwapSpace> swap,
               std::span<std::byte> pool);

  /// All of a part on swap: its flat buffer from `offset` on.
  struct Copy {
    SwapSpace& space;
    std::uint64_t offset;
    const BlockPartition& part;
    Dtype compute;
  };
  /// Of the first block. @pre the plan's copies_table
  Copy table_copy() const;

  bool weights_stay(int part) const override;
  TensorView resident_weights(int part) override;
  std::optional<Event> load_resident(int part) override;
  Submitted submit(const ShardJob& job) override;

 private:
  /// Elements of the shard that come from one place in a file.
  struct Stretch {
    int file;
    std::uint64_t offset;
    std::uint64_t bytes;  // groups may end within the last element
    Dtype dtype;
    std::int64_t begin;  // into the shard
    std::int64_t numel;
  };
  struct Part {
    WeightHome home = WeightHome::kMemory;
    Buffer memory;
    std::vector<Stretch> stretches;
    bool requested = false;    // what goes to `memory`, from files or swap
    bool copied = false;       // to swap: the shard, or the whole part
    bool whole = false;        // all of it
    std::uint64_t offset = 0;  // of the copy, into the swap space
  };

  void find(int index, const ParameterLocator& locator);
  void fill_memory(int index, const ParameterSource& values);
  void copy_to_swap(int index, const ParameterSource& values);
  void fill(const BlockPartition& block, std::int64_t begin, TensorView target,
            const ParameterSource& values) const;
  std::uint64_t shard_bytes(int index) const;
  Event read_files(const Part& part, TensorView weights, std::vector<Event> free);
  Event read_swap(int index, TensorView weights, std::vector<Event> free);
  const Part& part(int index) const { return parts_.at(static_cast<std::size_t>(index)); }

  const Partition& partition_;
  int rank_;
  Dtype compute_;
  std::vector<Part> parts_;
  std::unique_ptr<SwapSpace> swap_;
  FileReader files_;
  std::unique_ptr<Stream> load_;    // copies what is in memory
  std::unique_ptr<Stream> finish_;  // waits for reads from swap
  std::unique_ptr<Stream> submit_;  // submits them, and to finish_
};

}  // namespace strata
