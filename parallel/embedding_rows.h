#pragma once

// Internal to the generator. Not installed.

#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/model/block.h"
#include "parallel/frozen_shards.h"
#include "parallel/parameter_values.h"
#include "parallel/weight_storage.h"
#include "swap/file_reader.h"

namespace strata {

/// The parameters of a block whose table is too large to stream for the few rows that a pass looks
/// up (Block::looked_up()): those rows are read from the model's files or a copy on swap, by every
/// rank its own. The block's other parameters stay in memory, whole on every rank.
class EmbeddingRows final : public ParameterTable {
 public:
  /// Where all parameters of the block lie.
  struct Sources {
    const ParameterLocator& locator;  ///< in files, converted to what they are kept as
    /// In a copy, if there is one: of the rank's own, of the block's whole frozen part.
    std::optional<FrozenShards::Copy> copy = {};
  };
  /// What an object for passes of `rows` rows takes of host and device memory.
  static std::size_t memory_bytes(const Block& block, const WeightStorage& storage,
                                  std::int64_t rows);

  /// Blocks until the other parameters are in memory.
  /// @param block,device,engine and the copy's space borrowed, outlive the object
  /// @pre the block has such a table. @throws IoError
  EmbeddingRows(const Block& block, const WeightStorage& storage, const Sources& sources,
                std::int64_t rows, Device& device, IoEngine& engine);

  /// Reads the rows of `ids` and enqueues their copy to the device; blocks until they are read.
  /// @pre `compute` is done with what used the rows of the call before
  /// @return for every id its row of weight(table). @throws IoError
  std::vector<std::int32_t> fetch(std::span<const std::int32_t> ids, Stream& compute);

  /// Of the table: the rows of the last fetch(), without gaps.
  ConstTensorView weight(Parameter parameter) const override;
  TensorView gradient(Parameter) const override { return {}; }

 private:
  /// Where a parameter begins.
  struct Place {
    int file = 0;  // of files_
    std::uint64_t offset = 0;
    Dtype dtype = Dtype::kBf16;
  };
  struct Kept {
    Parameter parameter = nullptr;
    Dtype dtype = Dtype::kBf16;
    Buffer memory;  // of the device
  };

  std::int64_t width() const { return table_->shape[1]; }
  Place find(Parameter parameter, const Sources& sources);
  void read_whole(Kept& kept, const Place& place, Device& device, Stream& copy);

  Parameter table_;
  Dtype dtype_;  // of the table as it is kept
  Device& device_;
  Buffer pool_;
  Buffer host_rows_;
  Buffer device_rows_;
  std::int64_t fetched_ = 0;
  std::vector<Kept> others_;
  FileReader files_;
  Place place_;  // of the table
};

}  // namespace strata
