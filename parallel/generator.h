#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/model/block.h"
#include "core/trace.h"
#include "parallel/context.h"
#include "parallel/generation_plan.h"
#include "parallel/parameter_values.h"
#include "swap/kv_cache.h"
#include "swap/kv_swap.h"

namespace strata {

/// Rows of one pass on this rank: each a token of a sequence in the cache.
struct PassRows {
  std::vector<std::int32_t> ids = {};
  std::vector<std::int32_t> positions = {};
  std::vector<SequenceRows> sequences = {};  ///< their pages were grown for these rows
  /// Rows whose logits are wanted, ascending.
  std::vector<std::int64_t> picked = {};
};

/// Takes logits of picked rows: [rows, vocabulary] fp32, in host memory for the time of the call,
/// which may change them. `first` is the index in PassRows::picked of the first of them.
using LogitsSink = std::function<void(std::int64_t first, TensorView logits)>;

/// What a Generator of these arguments would do on one of `ranks` ranks. Takes no memory.
/// @throws UsageError as the Generator does
GenerationPlan plan_generation(const Model& model, int rank, int ranks,
                               const GeneratorOptions& options, const ParameterLocator& locator);

/// Runs a model forward over rows of many sequences whose keys and values lie in pages, with
/// weights that stay where they fit and stream where they do not. One pass reads every streamed
/// weight once, however many rows it has.
///
/// Every method is collective: all ranks call it, in the same order, from one thread, each with its
/// own rows. Exceptions leave the generator unusable.
class Generator {
 public:
  /// Plans, then takes memory. Weights are read from where `locator` finds them, in place; those
  /// that it does not find, or that lie otherwise than products want them, come from `source`: into
  /// memory where they stay, else into the swap directories.
  /// @param model borrowed, outlives the generator; every parameter frozen
  /// @throws UsageError when the plan does not fit, before anything was allocated
  Generator(const Context& context, const Model& model, const GeneratorOptions& options,
            const ParameterSource& source, const ParameterLocator& locator = {},
            Trace* trace = nullptr);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /// Of this rank. Its pages are written by pass().
  KvCache& cache() noexcept;
  /// Of this rank; null without GeneratorOptions::kv_swap_bytes.
  KvSwap* kv_swap() noexcept;
  const Model& model() const noexcept;
  const GenerationPlan& plan() const noexcept;
  /// Bytes that this rank has read from drives since the start.
  std::uint64_t bytes_read() const;
  /// That passes have waited for weights, on this rank, since the start.
  double seconds_waited() const;

  /// One pass over all blocks; blocks until the last logits were taken. The work of a rank without
  /// rows is only to pass its shards on.
  /// @pre at most plan().rows rows
  void pass(const PassRows& rows, const LogitsSink& sink);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace strata
