#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model/block.h"
#include "optimizer/update_rule.h"
#include "parallel/weight_storage.h"

namespace strata {

/// Where a parameter lies in its block's flat buffer.
struct Placement {
  Parameter parameter = nullptr;
  std::int64_t offset = 0;  ///< elements, a multiple of kParameterAlignment
  std::int64_t numel = 0;   ///< that it takes up
  /// A quantised parameter: its bytes, in place of so many elements of the compute dtype.
  std::optional<Dtype> quantized = {};
};

/// Elements: every parameter starts at 128 bytes in bf16, so that all products see aligned
/// operands.
inline constexpr std::int64_t kParameterAlignment = 64;
/// Elements: a shard is a multiple of this, 4096 bytes of its narrowest section, so that shards can
/// be read straight into their place in the flat buffer.
inline constexpr std::int64_t kShardAlignment = 2048;

/// Index of the part of its model that holds a parameter (class Partition).
int part_of(const Model& model, Parameter parameter);

/// The flat buffer of one part of a block, its trainable or its frozen parameters, and its cut into
/// equal shards. Row-tiled parameters come last. What is not a parameter is padding: zero, and
/// outside every norm and update. A part may be empty.
class BlockPartition {
 public:
  /// @param storage of frozen parameters; none: all in the compute dtype
  BlockPartition(const Block& block, int ranks, bool frozen = false,
                 const std::optional<WeightStorage>& storage = {});

  std::span<const Placement> placements() const noexcept { return placements_; }
  const Placement& placement(Parameter parameter) const;  ///< @throws Error if it is another part's
  std::int64_t shard_numel() const noexcept { return shard_numel_; }
  std::int64_t numel() const noexcept { return shard_numel_ * ranks_; }  ///< of the flat buffer
  /// Elements without padding.
  std::int64_t parameter_numel() const noexcept { return parameter_numel_; }
  /// Parameters in [0, dense_numel) have gradients that are reduced as a whole; the rest are
  /// row-tiled.
  std::int64_t dense_numel() const noexcept { return dense_numel_; }
  bool row_tiled() const noexcept { return dense_numel_ < end_; }
  int ranks() const noexcept { return ranks_; }

  /// The parameters within elements [begin, end) of rank `rank`'s shard, relative to `begin`.
  std::vector<UpdateSegment> segments(int rank, std::int64_t begin, std::int64_t end) const;

 private:
  int ranks_;
  std::vector<Placement> placements_;
  std::int64_t dense_numel_ = 0;
  std::int64_t end_ = 0;
  std::int64_t parameter_numel_ = 0;
  std::int64_t shard_numel_ = 0;
};

/// Which range of which parameter lies in whose shard. Immutable; the same on every rank.
///
/// Of n blocks, part b is the trainable one of block b and part n + b its frozen one. Parts are
/// what is gathered, and what has sections: a frozen part has its weights only.
class Partition {
 public:
  Partition(const Model& model, int ranks, const std::optional<WeightStorage>& storage = {});
  const BlockPartition& part(int index) const { return parts_.at(static_cast<std::size_t>(index)); }
  int part_count() const noexcept { return static_cast<int>(parts_.size()); }
  int block_count() const noexcept { return part_count() / 2; }
  int block_of(int part) const noexcept { return part % block_count(); }
  bool frozen(int part) const noexcept { return part >= block_count(); }
  int ranks() const noexcept { return ranks_; }

 private:
  int ranks_;
  std::vector<BlockPartition> parts_;
};

}  // namespace strata
