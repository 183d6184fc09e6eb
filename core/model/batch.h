#pragma once

#include <cstdint>
#include <vector>

namespace strata {

/// A label that does not count in the loss (any negative label does not; this is the one written).
inline constexpr std::int32_t kIgnoredLabel = -100;

/// Tokens that go through a block together: B sequences of S tokens, sequence after sequence, T = B
/// S. Labels are already shifted: labels[t] is the token that should follow ids[t].
struct MicroBatch {
  std::int64_t sequences = 0;            ///< B
  std::int64_t tokens_per_sequence = 0;  ///< S
  std::vector<std::int32_t> ids;         // [T]
  std::vector<std::int32_t> labels;      // [T], negative: not counted
  std::vector<std::int32_t> positions;   // [T], within the document if documents are masked
  /// First key each token may see, counted within its sequence: where its document starts.
  /// Empty: every token sees its whole past.
  std::vector<std::int32_t> first_key;  // [T] or []

  std::int64_t tokens() const noexcept { return sequences * tokens_per_sequence; }  ///< T
  std::int64_t counted_labels() const noexcept;
};

/// One rank's part of one optimizer step.
struct Batch {
  std::vector<MicroBatch> micro_batches;
  /// Number of the first of these sequences since the run began, counted over all ranks: with its
  /// place here it names a sequence for random numbers, whatever the number of ranks.
  std::int64_t first_sequence = 0;

  std::int64_t tokens() const noexcept;
  std::int64_t counted_labels() const noexcept;
};

}  // namespace strata
