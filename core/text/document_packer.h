#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/text/training_rows.h"
#include "core/text/training_token.h"

namespace strata {

/// Lays documents out as one row of tokens: end to end, or packed into sequences that split none.
///
/// Packing puts a document into the fullest of the open sequences that has room for it (best fit)
/// and closes the fullest when none has. A document longer than a sequence is cut at its end. What
/// is left of a closed sequence is filled with documents of one token that nothing learns from.
class DocumentPacker {
 public:
  /// Gets the tokens in their order.
  using Sink = std::function<void(std::span<const TrainingToken>)>;

  /// @param sequence_length tokens of a sequence; 0: end to end
  /// @param filler id of the tokens that fill a sequence up
  DocumentPacker(std::int64_t sequence_length, std::int32_t filler, Sink sink);

  /// @param starts false: goes on where the last document ended (end to end only)
  void add(const Document& document, bool starts = true);
  /// Closes what is open. Packed sequences are followed by one more filler: the last token of the
  /// last sequence, too, has something behind it.
  void finish();

  /// Tokens of the longest document that came in one part.
  std::int64_t longest() const noexcept { return longest_; }
  /// Documents that were longer than a sequence they are packed into.
  std::int64_t cut() const noexcept { return cut_; }
  /// Those of them that have nothing to learn before the cut.
  std::int64_t cut_unlearned() const noexcept { return cut_unlearned_; }

 private:
  using Tokens = std::vector<TrainingToken>;
  void close(std::size_t index);
  std::size_t fullest() const;

  std::size_t length_;
  std::int32_t filler_;
  Sink sink_;
  std::vector<Tokens> open_;
  Tokens fresh_;
  std::int64_t longest_ = 0;
  std::int64_t cut_ = 0;
  std::int64_t cut_unlearned_ = 0;
};

}  // namespace strata
