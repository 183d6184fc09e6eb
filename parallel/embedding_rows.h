#pragma once

// Internal to the generator. Not installed.

#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/model/block.h"
#include "parallel/parameter_values.h"
#include "parallel/weight_storage.h"
#include "swap/file_reader.h"

namespace strata {

/// The parameters of a block whose table is too large to stream for the few rows that a pass looks
/// up (Block::looked_up()): those rows are read from the model's files, by every rank its own. The
/// block's other parameters stay in memory, whole on every rank.
class EmbeddingRows final : public ParameterTable {
 public:
  /// Whether the block has such a table, and files hold all its parameters as they are kept.
  static bool possible(const Block& block, const WeightStorage& storage,
                       const ParameterLocator& locator);
  /// What an object for passes of `rows` rows takes of host and device memory.
  static std::size_t memory_bytes(const Block& block, const WeightStorage& storage,
                                  std::int64_t rows);

  /// Blocks until the other parameters are in memory.
  /// @param block,device,engine borrowed, outlive the object. @pre possible(block, ...)
  /// @throws IoError
  EmbeddingRows(const Block& block, const WeightStorage& storage, const ParameterLocator& locator,
                std::int64_t rows, Device& device, IoEngine& engine);

  /// Reads the rows of `ids` and enqueues their copy to the device; blocks until they are read.
  /// @pre `compute` is done with what used the rows of the call before
  /// @return for every id its row of weight(table). @throws IoError
  std::vector<std::int32_t> fetch(std::span<const std::int32_t> ids, Stream& compute);

  /// Of the table: the rows of the last fetch(), without gaps.
  ConstTensorView weight(Parameter parameter) const override;
  TensorView gradient(Parameter) const override { return {}; }

 private:
  struct Kept {
    Parameter parameter = nullptr;
    Dtype dtype = Dtype::kBf16;
    Buffer memory;  // of the device
  };

  std::int64_t width() const { return table_->shape[1]; }
  void read_whole(Kept& kept, const ParameterLocator& locator, Device& device, Stream& copy);

  Parameter table_;
  Dtype dtype_;  // of the table as it is kept
  Device& device_;
  Buffer pool_;
  Buffer host_rows_;
  Buffer device_rows_;
  std::int64_t fetched_ = 0;
  std::vector<Kept> others_;
  FileReader files_;
  StoredParameter stored_;
  int file_ = 0;
};

}  // namespace strata
