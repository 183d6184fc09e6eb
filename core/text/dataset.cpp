#include "core/text/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_map>

#include "core/error.h"
#include "core/random.h"

namespace strata {
namespace {

void check_options(const DatasetOptions& options) {
  if (options.sequence_length < 1) {
    throw UsageError(fmt::format("the sequence length is {}; at least 1", options.sequence_length));
  }
  if (!(options.held_out >= 0.0 && options.held_out < 1.0)) {
    throw UsageError(fmt::format("the held-out part is {}; from 0 to below 1", options.held_out));
  }
  expects(!options.mask_documents || options.end_of_document >= 0,
          "masking documents needs the token that ends them");
}

void check_shape(const BatchShape& shape) {
  expects(shape.sequences > 0 && shape.micro_batches > 0 && shape.ranks > 0 && shape.rank >= 0 &&
              shape.rank < shape.ranks,
          "a batch has at least one sequence on each rank");
}

}  // namespace

Dataset::Dataset(std::vector<std::int32_t> tokens, DatasetOptions options)
    : tokens_(std::move(tokens)), options_(options) {
  check_options(options);
  const auto all = static_cast<std::int64_t>(tokens_.size());
  training_ = all - static_cast<std::int64_t>(static_cast<double>(all) * options.held_out);
  sequences_ = std::max<std::int64_t>(0, training_ - 1) / options.sequence_length;
  if (sequences_ == 0) {
    throw UsageError(fmt::format(
        "{} tokens to train on do not fill one sequence of {} and its last label; use more text or "
        "shorter sequences",
        training_, options.sequence_length));
  }
}

std::span<const std::int32_t> Dataset::training_tokens() const noexcept {
  return std::span(tokens_).first(static_cast<std::size_t>(training_));
}

std::span<const std::int32_t> Dataset::held_out_tokens() const noexcept {
  return std::span(tokens_).subspan(static_cast<std::size_t>(training_));
}

Batch Dataset::next(const BatchShape& shape) {
  check_shape(shape);
  const std::int64_t per_rank = shape.sequences * shape.micro_batches;
  const std::int64_t used = cursor_.epoch * sequences_ + cursor_.position;
  Batch batch;
  batch.first_sequence = used + per_rank * shape.rank;
  const auto length = static_cast<std::size_t>(options_.sequence_length);
  for (std::int64_t m = 0; m < shape.micro_batches; ++m) {
    MicroBatch& micro_batch = batch.micro_batches.emplace_back();
    for (std::int64_t s = 0; s < shape.sequences; ++s) {
      const std::int64_t number = batch.first_sequence + m * shape.sequences + s;
      const std::int64_t place =
          shuffled(number % sequences_, sequences_, options_.seed, number / sequences_);
      append(micro_batch,
             training_tokens().subspan(static_cast<std::size_t>(place) * length, length + 1));
    }
    if (options_.mask_documents) mask_documents(micro_batch);
  }
  const std::int64_t after = used + per_rank * shape.ranks;
  cursor_ = {after / sequences_, after % sequences_};
  return batch;
}

Batch Dataset::held_out(const BatchShape& shape) const { return cut(held_out_tokens(), shape); }

Batch Dataset::cut(std::span<const std::int32_t> tokens, const BatchShape& shape) const {
  check_shape(shape);
  const auto length = static_cast<std::size_t>(options_.sequence_length);
  const std::size_t sequences = tokens.size() < 2 ? 0 : (tokens.size() - 2) / length + 1;
  const auto per_micro_batch = static_cast<std::size_t>(shape.sequences);
  Batch batch;
  for (std::size_t first = static_cast<std::size_t>(shape.rank) * per_micro_batch;
       first < sequences; first += static_cast<std::size_t>(shape.ranks) * per_micro_batch) {
    MicroBatch& micro_batch = batch.micro_batches.emplace_back();
    for (std::size_t s = first; s < first + per_micro_batch; ++s) {
      const std::size_t begin = std::min(s * length, tokens.size());
      append(micro_batch, tokens.subspan(begin, std::min(length + 1, tokens.size() - begin)));
    }
    if (options_.mask_documents) mask_documents(micro_batch);
  }
  return batch;
}

/// `tokens` are a sequence and the label of its last token; the rest of a short one does not count.
void Dataset::append(MicroBatch& batch, std::span<const std::int32_t> tokens) const {
  const std::int64_t length = options_.sequence_length;
  batch.tokens_per_sequence = length;
  ++batch.sequences;
  const auto given = static_cast<std::int64_t>(tokens.size());
  for (std::int64_t t = 0; t < length; ++t) {
    const bool counted = t + 1 < given;
    batch.ids.push_back(counted ? tokens[static_cast<std::size_t>(t)] : 0);
    batch.labels.push_back(counted ? tokens[static_cast<std::size_t>(t + 1)] : kIgnoredLabel);
    batch.positions.push_back(static_cast<std::int32_t>(t));
  }
}

/// Restarts positions and keys behind every end of a document; what follows an end is not
/// predicted.
void Dataset::mask_documents(MicroBatch& batch) const {
  std::vector<std::int32_t> first_key;
  first_key.reserve(batch.ids.size());
  bool several = false;
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    const auto t =
        static_cast<std::int32_t>(i % static_cast<std::size_t>(batch.tokens_per_sequence));
    const bool starts = t == 0 || batch.ids[i - 1] == options_.end_of_document;
    first_key.push_back(starts ? t : first_key.back());
    batch.positions[i] = t - first_key.back();
    several = several || first_key.back() > 0;
    if (batch.ids[i] == options_.end_of_document) batch.labels[i] = kIgnoredLabel;
  }
  if (several) batch.first_key = std::move(first_key);
}

void Dataset::seek(const DataCursor& cursor) {
  if (cursor.epoch < 0 || cursor.position < 0 || cursor.position >= sequences_) {
    throw Error(
        fmt::format("the cursor (epoch {}, sequence {}) does not belong to this data, which "
                    "has {} sequences; resume with the text and sequence length of the run",
                    cursor.epoch, cursor.position, sequences_));
  }
  cursor_ = cursor;
}

/// A Feistel network permutes [0, 4^half) for the smallest power that holds `count`; walking along
/// its cycle until a value falls below `count` permutes [0, count).
std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t seed,
                      std::int64_t epoch) {
  expects(index >= 0 && index < count, "the index lies in the permutation");
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(count - 1)));
  const int half = std::max(1, (bits + 1) / 2);
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  const auto key = random_key(seed, "data order");
  const auto number = static_cast<std::uint64_t>(epoch);
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half, right = value & mask;
    for (std::uint32_t round = 0; round < 4; ++round) {
      const auto random =
          philox({static_cast<std::uint32_t>(right), round, static_cast<std::uint32_t>(number),
                  static_cast<std::uint32_t>(number >> 32)},
                 key);
      const std::uint64_t mixed = left ^ (random[0] & mask);
      left = right;
      right = mixed;
    }
    value = left << half | right;
  } while (value >= static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(value);
}

double bigram_loss(std::span<const std::int32_t> train, std::span<const std::int32_t> held_out,
                   std::int64_t vocab_size, double smoothing) {
  const auto pair_key = [](std::int32_t a, std::int32_t b) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 |
           static_cast<std::uint32_t>(b);
  };
  std::unordered_map<std::uint64_t, std::int64_t> pairs;
  std::unordered_map<std::int32_t, std::int64_t> singles;
  for (std::size_t i = 1; i < train.size(); ++i) {
    ++pairs[pair_key(train[i - 1], train[i])];
    ++singles[train[i - 1]];
  }
  double sum = 0.0;
  for (std::size_t i = 1; i < held_out.size(); ++i) {
    const auto pair = pairs.find(pair_key(held_out[i - 1], held_out[i]));
    const auto single = singles.find(held_out[i - 1]);
    const auto both = static_cast<double>(pair == pairs.end() ? 0 : pair->second);
    const auto first = static_cast<double>(single == singles.end() ? 0 : single->second);
    sum -= std::log((both + smoothing) / (first + smoothing * static_cast<double>(vocab_size)));
  }
  return held_out.size() < 2 ? 0.0 : sum / static_cast<double>(held_out.size() - 1);
}

}  // namespace strata
