#include "core/text/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/text/shuffle.h"

namespace strata {
namespace {

constexpr std::int64_t kStretchTokens = std::int64_t{2} << 20;
constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();

void check_options(const DatasetOptions& options) {
  if (options.sequence_length < 1) {
    throw UsageError(fmt::format("the sequence length is {}; at least 1", options.sequence_length));
  }
}

void check_shape(const BatchShape& shape) {
  expects(shape.sequences > 0 && shape.micro_batches > 0 && shape.ranks > 0 && shape.rank >= 0 &&
              shape.rank < shape.ranks,
          "a batch has at least one sequence on each rank");
}

/// Adds a sequence. `tokens` are its tokens and the label of its last one; the rest of a short one
/// does not count.
void append(MicroBatch& batch, const DatasetOptions& options,
            std::span<const TrainingToken> tokens) {
  const auto length = static_cast<std::size_t>(options.sequence_length);
  batch.tokens_per_sequence = options.sequence_length;
  ++batch.sequences;
  std::int32_t start = 0;  // of the document, in the sequence
  for (std::size_t t = 0; t < length; ++t) {
    const auto place = static_cast<std::int32_t>(t);
    const bool given = t < tokens.size();
    const bool starts = !given || tokens[t].starts_document();
    if (options.reset_documents && starts) start = place;
    const bool counts = t + 1 < tokens.size() && tokens[t + 1].trained() &&
                        !(options.reset_documents && tokens[t + 1].starts_document());
    batch.ids.push_back(given ? tokens[t].id() : 0);
    batch.labels.push_back(counts ? tokens[t + 1].id() : kIgnoredLabel);
    batch.positions.push_back(place - start);
    batch.first_key.push_back(start);
  }
}

/// Nothing is masked where every token sees its whole past.
void drop_needless_mask(MicroBatch& batch) {
  const auto whole = [](std::int32_t key) { return key == 0; };
  if (std::ranges::all_of(batch.first_key, whole)) batch.first_key.clear();
}

/// Sequence `place` of a row of `available` tokens, with the label of its last token.
std::vector<TrainingToken> read_sequence(TokenSource& source, std::int64_t place,
                                         std::int64_t length, std::int64_t available) {
  const std::int64_t begin = std::min(place * length, available);
  std::vector<TrainingToken> tokens(
      static_cast<std::size_t>(std::min(length + 1, available - begin)));
  source.read(begin, tokens);
  return tokens;
}

}  // namespace

Dataset::Dataset(std::unique_ptr<TokenSource> tokens, const DatasetOptions& options)
    : tokens_(std::move(tokens)), options_(options) {
  check_options(options);
  stretch_ = std::max<std::int64_t>(1, kStretchTokens / options.sequence_length);
  const std::int64_t available = tokens_->wait_for(options.sequence_length + 1);
  if (available <= options.sequence_length) {
    throw UsageError(fmt::format(
        "{} tokens to train on do not fill one sequence of {} and its last label; use more text or "
        "shorter sequences",
        available, options.sequence_length));
  }
}

/// How many sequences there are, once `count` are or all tokens are there.
std::int64_t Dataset::sequences_up_to(std::int64_t count) {
  const std::int64_t length = options_.sequence_length;
  const std::int64_t wanted = count > kAll / length - 1 ? kAll : count * length + 1;
  return (tokens_->wait_for(wanted) - 1) / length;
}

std::int64_t Dataset::sequences() { return sequences_up_to(kAll); }

/// Which sequence of the row is number `number` of the run.
std::int64_t Dataset::place_of(std::int64_t number) {
  const std::int64_t begin = number / stretch_ * stretch_;
  const std::int64_t end = std::min(begin + stretch_, sequences_up_to(begin + stretch_));
  if (number < end) {  // in the first epoch
    return begin + shuffled(number - begin, end - begin, options_.seed, 0);
  }
  const std::int64_t all = sequences();
  return shuffled(number % all, all, options_.seed, number / all);
}

Batch Dataset::next(const BatchShape& shape) {
  check_shape(shape);
  const std::int64_t per_rank = shape.sequences * shape.micro_batches;
  Batch batch;
  batch.first_sequence = cursor_ + per_rank * shape.rank;
  for (std::int64_t m = 0; m < shape.micro_batches; ++m) {
    MicroBatch& micro_batch = batch.micro_batches.emplace_back();
    for (std::int64_t s = 0; s < shape.sequences; ++s) {
      const std::int64_t place = place_of(batch.first_sequence + m * shape.sequences + s);
      append(micro_batch, options_, read_sequence(*tokens_, place, options_.sequence_length, kAll));
    }
    drop_needless_mask(micro_batch);
  }
  cursor_ += per_rank * shape.ranks;
  return batch;
}

void Dataset::seek(std::int64_t cursor) {
  expects(cursor >= 0, "a cursor is not negative");
  cursor_ = cursor;
}

EvaluationPasses::EvaluationPasses(TokenSource& tokens, const DatasetOptions& options,
                                   const BatchShape& shape)
    : tokens_(tokens), options_(options), shape_(shape), available_(tokens.wait_for(kAll)) {
  check_options(options);
  check_shape(shape);
}

std::int64_t EvaluationPasses::count() const noexcept {
  const std::int64_t sequences =
      available_ < 2 ? 0 : (available_ - 2) / options_.sequence_length + 1;
  const std::int64_t per_pass = shape_.sequences * shape_.micro_batches * shape_.ranks;
  return (sequences + per_pass - 1) / per_pass;
}

Batch EvaluationPasses::pass(std::int64_t index) const {
  Batch batch;
  for (std::int64_t m = 0; m < shape_.micro_batches; ++m) {
    const std::int64_t first =
        ((index * shape_.micro_batches + m) * shape_.ranks + shape_.rank) * shape_.sequences;
    if (first * options_.sequence_length + 1 >= available_) break;
    MicroBatch& micro_batch = batch.micro_batches.emplace_back();
    for (std::int64_t s = first; s < first + shape_.sequences; ++s) {
      append(micro_batch, options_,
             read_sequence(tokens_, s, options_.sequence_length, available_));
    }
    drop_needless_mask(micro_batch);
  }
  return batch;
}

}  // namespace strata
