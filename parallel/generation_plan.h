#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/model/block.h"
#include "core/paged_kv.h"
#include "parallel/partition.h"
#include "parallel/plan.h"
#include "swap/io_engine.h"
#include "swap/kv_cache.h"
#include "swap/swap_file.h"

namespace strata {

/// What one rank generates with.
struct GeneratorOptions {
  Dtype compute = Dtype::kBf16;  ///< kBf16 or kF32
  Dtype weights = Dtype::kBf16;  ///< kQ8 and kQ4: matrices are kept quantised (WeightStorage)
  std::optional<Dtype> kv = {};  ///< of keys and values: kQ8 or kQ4; none: as `compute`
  std::optional<std::uint64_t> dram_bytes = {};  ///< all buffers; none: as much as it takes
  std::optional<std::uint64_t> kv_bytes = {};    ///< of keys and values; none: as there is room
  /// On the swap directories, for keys and values of sequences that were preempted; 0: those are
  /// computed again.
  std::uint64_t kv_swap_bytes = 0;
  std::int64_t sequences = 1;           ///< in flight at most
  std::int64_t sequence_tokens = 1024;  ///< that the longest text has in the end, its prompt too
  std::int64_t rows = 0;                ///< tokens of a pass at most; 0: 512, or two per sequence
  bool residency = true;                ///< false: no weights stay in memory
  int prefetch_depth = 2;               ///< blocks read ahead, where memory allows
  /// Whether ranks keep whole blocks once they are gathered, if all of them have room.
  bool keep_gathered = true;
  /// Where weights go that cannot be read in place and do not stay; empty: all of those must stay.
  std::vector<SwapDirectory> swap = {};
  IoEngineOptions io = {};
  /// Makes the engine that `io` describes; replace it to put another between us and the drive.
  std::function<std::unique_ptr<IoEngine>(const IoEngineOptions&)> make_engine = make_io_engine;

  Dtype kv_dtype() const { return kv.value_or(compute); }
};

/// Where a part's weights rest.
enum class WeightHome : std::uint8_t {
  kMemory,
  kFile,  ///< in the model's own files, read in place
  kSwap   ///< in a copy on swap
};

/// Everything about one rank's memory, decided before the first pass. Sizes in bytes.
struct GenerationPlan {
  std::vector<WeightHome> homes;    ///< by part of the partition
  int prefetch_depth = 0;           ///< blocks read ahead
  bool weights_in_place = false;    ///< one rank computes from its resident weights where they lie
  bool keeps_gathered = false;      ///< each rank keeps whole blocks, and gathers them once
  bool looks_up = false;            ///< the first block's table is not gathered (EmbeddingRows)
  bool copies_table = false;        ///< which is not in files: all of it goes to every rank's swap
  std::int64_t rows = 0;            ///< of a pass at most
  std::int64_t rows_at_once = 0;    ///< that a block computes together
  std::int64_t logits_at_once = 0;  ///< rows that the last block computes together

  std::size_t resident = 0;     ///< weights that stay
  std::size_t gathered = 0;     ///< complete blocks
  std::size_t file_pool = 0;    ///< bytes of model files on their way
  std::size_t embedding = 0;    ///< looked-up rows, and what else the first block has
  std::size_t activations = 0;  ///< between blocks
  std::size_t batch = 0;        ///< ids and positions
  std::size_t workspace = 0;    ///< activations within a block, logits
  std::size_t kv = 0;           ///< keys and values, whole pages
  std::size_t kv_staging = 0;   ///< those on their way to a drive
  std::size_t dram() const {
    return resident + gathered + file_pool + embedding + kv_staging + activations + batch +
           workspace + kv;
  }
  std::uint64_t swap = 0;     ///< copies of weights
  std::uint64_t kv_swap = 0;  ///< keys and values that wait on drives, beside it

  /// Bytes that this rank reads from drives in a pass, without rows that are looked up.
  std::uint64_t streamed = 0;
  std::uint64_t weights = 0;         ///< bytes of weights that a pass computes from
  double operations_per_row = 0;     ///< of products, without attention and logits
  double operations_per_logits = 0;  ///< of the last block, per row whose logits are wanted
};

/// What a plan is made for.
struct GenerationPlanInput {
  const Model& model;
  const Partition& partition;
  KvShape kv;
  /// By part: the bytes of its shard in the model's files, where it can be read from them.
  std::vector<std::optional<std::uint64_t>> in_files;
  const GeneratorOptions& options;
  /// What EmbeddingRows takes for passes of so many rows; none: the first block has no table.
  std::function<std::size_t(std::int64_t rows)> embedding_bytes = {};
};

/// Where everything fits, shards stay; whole blocks, too, where keys and values lose nothing by it.
/// Else buffers first, keys and values next, and with what is left the weights that save most
/// reading per byte: those that a pass reads twice (where tables are not looked up), then a set
/// spread evenly over the blocks so that the drive always has something to do. A table that is
/// copied to swap for its rows comes last.
/// @throws UsageError with the smallest budget that works when this one does not, and when keys and
/// values have no room for one sequence
GenerationPlan make_generation_plan(const GenerationPlanInput& input);

/// What a token's keys and values are, in all blocks that attend.
/// @throws UsageError for a model whose blocks differ in it
KvShape kv_shape(const Model& model, Dtype dtype);

}  // namespace strata
