#pragma once

#include <cstdint>
#include <memory>

#include "core/model/batch.h"
#include "core/text/token_source.h"

namespace strata {

struct DatasetOptions {
  std::int64_t sequence_length = 1024;  ///< S
  std::uint64_t seed = 0;               ///< of the order of sequences
  /// A token sees its own document only, and positions start anew with each.
  bool reset_documents = false;
};

/// How one optimizer step is cut. The global batch is sequences x micro_batches x ranks long.
struct BatchShape {
  std::int64_t sequences = 1;      ///< per micro-batch
  std::int64_t micro_batches = 1;  ///< per rank
  int rank = 0;
  int ranks = 1;
};

/// Sequences of S tokens for next-token prediction, cut from a row of tokens without overlap; what
/// is left at the end is not used. Ranks take consecutive parts of the global batch, so it is the
/// same batch for any number of ranks and any split into micro-batches.
///
/// Every epoch visits every sequence once. The first one takes the row in stretches of two million
/// tokens and shuffles each, so that it can begin while later ones are still being tokenised; the
/// others shuffle all sequences. Orders depend on the seed only.
///
/// Reads a batch's tokens when it is asked for one. One thread at a time.
class Dataset {
 public:
  /// Blocks until there is a sequence. @throws UsageError when there is none, or an option is out
  /// of range
  Dataset(std::unique_ptr<TokenSource> tokens, const DatasetOptions& options);

  /// The rank's part of the next global batch; moves the cursor past all of it. Blocks until the
  /// tokens are there.
  Batch next(const BatchShape& shape);

  /// Sequences of an epoch. Blocks until all tokens are there.
  std::int64_t sequences();

  /// Sequences used up since the beginning of the run.
  std::int64_t cursor() const noexcept { return cursor_; }
  /// Continues exactly where `cursor` was taken, with the same data, length and seed.
  /// @pre not negative
  void seek(std::int64_t cursor);

  TokenSource& tokens() noexcept { return *tokens_; }

 private:
  std::int64_t sequences_up_to(std::int64_t count);
  std::int64_t place_of(std::int64_t number);

  std::unique_ptr<TokenSource> tokens_;
  DatasetOptions options_;
  std::int64_t stretch_;  // sequences that the first epoch shuffles together
  std::int64_t cursor_ = 0;
};

/// A row of tokens from its first to its last, in passes of shape.micro_batches micro-batches per
/// rank: micro-batch k of all goes to rank k mod P. All have shape.sequences sequences; what the
/// last ones lack is filled up with labels that do not count. Every rank makes as many passes.
class EvaluationPasses {
 public:
  /// `tokens` must outlive the object. Blocks until all of them are there.
  EvaluationPasses(TokenSource& tokens, const DatasetOptions& options, const BatchShape& shape);

  std::int64_t count() const noexcept;
  /// The rank's part of pass `index`; empty where other ranks have the rest.
  Batch pass(std::int64_t index) const;

 private:
  TokenSource& tokens_;
  DatasetOptions options_;
  BatchShape shape_;
  std::int64_t available_;  // tokens
};

}  // namespace strata
