#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/batch.h"

namespace strata {

struct DatasetOptions {
  std::int64_t sequence_length = 1024;  ///< S
  double held_out = 0.05;             ///< part of the tokens, at the end, that is never trained on
  std::uint64_t seed = 0;             ///< of the order of sequences
  bool mask_documents = false;        ///< a token sees its own document only
  std::int32_t end_of_document = -1;  ///< ends a document; needed for mask_documents
};

/// Where a run is in its data: `position` sequences of epoch `epoch` are used up.
struct DataCursor {
  std::int64_t epoch = 0;
  std::int64_t position = 0;
  bool operator==(const DataCursor&) const = default;
};

/// How one optimizer step is cut. The global batch is sequences x micro_batches x ranks long.
struct BatchShape {
  std::int64_t sequences = 1;      ///< per micro-batch
  std::int64_t micro_batches = 1;  ///< per rank
  int rank = 0;
  int ranks = 1;
};

/// Sequences of S tokens for next-token prediction, cut from one row of tokens without overlap;
/// what is left at the end of the training part is not used. Every epoch visits every sequence
/// once, in an order that depends on (seed, epoch) only. Ranks take consecutive parts of the global
/// batch, so it is the same batch for any number of ranks and any split into micro-batches.
///
/// Holds the tokens in memory. One thread at a time.
class Dataset {
 public:
  /// @throws UsageError when the tokens do not make one sequence to train on, or an option is out
  /// of range
  Dataset(std::vector<std::int32_t> tokens, DatasetOptions options);

  /// The rank's part of the next global batch; moves the cursor past all of it.
  Batch next(const BatchShape& shape);

  /// The held-out part from its first to its last token, the same on every rank: rank r of P has
  /// micro-batches r, r + P, ... All have shape.sequences sequences; what the last ones lack is
  /// filled up with labels that do not count. Empty when nothing is held out.
  Batch held_out(const BatchShape& shape) const;
  /// The same of other tokens, e.g. of a file for evaluation.
  Batch cut(std::span<const std::int32_t> tokens, const BatchShape& shape) const;

  std::int64_t sequences() const noexcept { return sequences_; }  ///< per epoch
  std::span<const std::int32_t> training_tokens() const noexcept;
  std::span<const std::int32_t> held_out_tokens() const noexcept;

  DataCursor cursor() const noexcept { return cursor_; }
  /// Continues exactly where `cursor` was taken. @throws Error if it does not belong to this data
  void seek(const DataCursor& cursor);

 private:
  void append(MicroBatch& batch, std::span<const std::int32_t> tokens) const;
  void mask_documents(MicroBatch& batch) const;

  std::vector<std::int32_t> tokens_;
  DatasetOptions options_;
  std::int64_t training_ = 0;  ///< tokens to train on
  std::int64_t sequences_ = 0;
  DataCursor cursor_;
};

/// Place `index` of a permutation of [0, count) that depends on `seed` and `epoch` only. Needs no
/// memory.
std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t seed,
                      std::int64_t epoch);

/// Mean cross-entropy in nats per token of the bigram model of `train` on `held_out`: what a model
/// must beat to have learned more than pairs of tokens. `smoothing` is added to the count of every
/// pair; with 0 and held_out = train it is the entropy of a token given the one before it. 0 for
/// fewer than two held-out tokens.
double bigram_loss(std::span<const std::int32_t> train, std::span<const std::int32_t> held_out,
                   std::int64_t vocab_size, double smoothing = 1.0);

}  // namespace strata
