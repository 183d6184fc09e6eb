#pragma once

#include <cstdint>
#include <vector>

#include "core/model/block.h"

namespace strata {

/// The shape of a step on one rank.
struct StepShape {
  int micro_batches = 1;       ///< A
  std::int64_t sequences = 1;  ///< of a micro-batch
  std::int64_t sequence_length = 1;
  std::int64_t tokens() const noexcept { return sequences * sequence_length; }  ///< T
};

/// What one block's visits cost, for all micro-batches of a step on one rank.
struct BlockCost {
  double forward_operations = 0;   ///< floating-point operations of products and attention
  double backward_operations = 0;  ///< recomputation included
  double useful_operations = 0;    ///< three times the forward, less what frozen parameters save:
                                   ///< what MFU counts
  std::size_t forward_workspace = 0;  ///< bytes of device memory at the highest
  std::size_t backward_workspace = 0;
};

/// Runs a block's forward() and backward() over operations and memory that only count: exact for
/// any block, in milliseconds, on any machine.
BlockCost measure_block(const Model& model, int block, const StepShape& shape, Dtype compute);
/// What the model's loss needs for Loss::logits() of `rows` rows: operations and workspace of the
/// forward phase.
BlockCost measure_logits(const Model& model, std::int64_t rows, Dtype compute);
/// Of all blocks.
std::vector<BlockCost> measure_blocks(const Model& model, const StepShape& shape, Dtype compute);

}  // namespace strata
