// Every family with its keys and values in pages, against the same model on whole sequences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/model/transformer.h"
#include "swap/kv_cache.h"
#include "tests/support/golden_model.h"
#include "tests/support/plain_visit.h"

namespace strata {
namespace {

using test::GoldenModel;
using test::PlainModel;

/// Runs a model over a cache, some tokens of each sequence at a time.
class Decoder {
 public:
  Decoder(const ModelConfig& config, PlainModel& plain)
      : plain_(plain),
        vocabulary_(config.vocab_size),
        shape_{.layers = static_cast<int>(config.layers),
               .kv_heads = config.kv_heads,
               .head_size = config.head_size,
               .dtype = Dtype::kF32},
        memory_(allocate_host(16 * shape_.page_bytes())),
        cache_(shape_, {memory_.data(), memory_.bytes()}),
        workspace_(allocate_host(64 << 20)) {}

  KvCache& cache() { return cache_; }

  /// Logits [T, V] of tokens that continue sequences of the cache: `ids[i]` those of
  /// `sequences[i]`.
  std::vector<float> step(const std::vector<KvCache::Id>& sequences,
                          const std::vector<std::vector<std::int32_t>>& ids) {
    std::vector<std::int32_t> tokens, positions;
    std::vector<SequenceRows> rows;
    lengths_.resize(std::max(lengths_.size(), sequences.size()));
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      auto& length = lengths_[static_cast<std::size_t>(sequences[i])];
      const auto count = static_cast<std::int64_t>(ids[i].size());
      EXPECT_TRUE(cache_.grow(sequences[i], length + count));
      rows.push_back({.row = static_cast<std::int64_t>(tokens.size()),
                      .rows = count,
                      .position = length,
                      .pages = cache_.pages(sequences[i])});
      for (const std::int32_t id : ids[i]) {
        tokens.push_back(id);
        positions.push_back(static_cast<std::int32_t>(length++));
      }
    }
    return forward(tokens, positions, rows);
  }

 private:
  std::vector<float> forward(const std::vector<std::int32_t>& tokens,
                             const std::vector<std::int32_t>& positions,
                             const std::vector<SequenceRows>& rows) {
    const auto count = static_cast<std::int64_t>(tokens.size());
    const DeviceBatch batch{.ids = ConstTensorView(tokens.data(), Dtype::kI32, {count}),
                            .labels = {},
                            .positions = ConstTensorView(positions.data(), Dtype::kI32, {count}),
                            .first_key = {},
                            .sequences = 1,
                            .tokens = count};
    const Model& model = plain_.model();
    std::vector<PagedKv> layers;
    for (int layer = 0; layer < shape_.layers; ++layer) layers.push_back(cache_.layer(layer));
    std::vector<float> activation;
    Value input;
    for (int b = 0; b + 1 < model.block_count(); ++b) {
      Graph graph(device_->ops(), *stream_, workspace_, plain_.parameters(), Dtype::kF32, false);
      if (b > 0) graph.attend_over(layers[static_cast<std::size_t>(b - 1)], rows);
      input = model.block(b).forward(graph, input, batch);
    }
    Graph graph(device_->ops(), *stream_, workspace_, plain_.parameters(), Dtype::kF32, false);
    const auto& head = dynamic_cast<const TransformerHead&>(model.block(model.block_count() - 1));
    const Value logits = head.logits(graph, input);
    stream_->synchronize();
    const float* values = logits.view().as<float>();
    return {values, values + count * vocabulary_};
  }

  PlainModel& plain_;
  std::int64_t vocabulary_;
  KvShape shape_;
  Buffer memory_;
  KvCache cache_;
  Workspace workspace_;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = make_inline_stream();
  std::vector<std::int64_t> lengths_;  // by id
};

class PagedDecoding : public testing::TestWithParam<std::string> {};

TEST_P(PagedDecoding, GivesTheLogitsOfWholeSequences) {
  const GoldenModel golden(GetParam());
  const ModelConfig& config = golden.model().config();
  PlainModel plain(golden.model().model(), Dtype::kF32, golden.model().source());
  Batch batch = golden.batch();
  MicroBatch& whole = batch.micro_batches.front();
  whole.first_key.clear();
  const std::int64_t length = whole.tokens_per_sequence;
  for (std::size_t t = 0; t < whole.positions.size(); ++t) {
    whole.positions[t] = static_cast<std::int32_t>(static_cast<std::int64_t>(t) % length);
  }
  plain.run(batch, 1.0f, false);
  const std::vector<float> want = plain.logits(0);
  double norm = 0;
  for (const float logit : want) norm += static_cast<double>(logit) * static_cast<double>(logit);

  Decoder decoder(config, plain);
  const std::vector<KvCache::Id> both = {decoder.cache().add(), decoder.cache().add()};
  ASSERT_EQ(whole.sequences, 2);
  const auto ids = [&](std::int64_t sequence, std::int64_t begin, std::int64_t end) {
    const auto from = whole.ids.begin() + sequence * length;
    return std::vector<std::int32_t>(from + begin, from + end);
  };
  double difference = 0;
  const auto compare = [&](const float* got, std::int64_t row) {
    const float* expected = want.data() + row * config.vocab_size;
    for (std::int64_t v = 0; v < config.vocab_size; ++v) {
      const double d = static_cast<double>(got[v]) - static_cast<double>(expected[v]);
      difference += d * d;
    }
  };
  // A prompt of a third, then token by token; the second sequence starts one step later.
  const std::int64_t prompt = length / 3;
  std::int64_t first = prompt, second = 0;
  std::vector<float> logits = decoder.step({both[0]}, {ids(0, 0, prompt)});
  for (std::int64_t t = 0; t < prompt; ++t)
    compare(&logits[static_cast<std::size_t>(t * config.vocab_size)], t);
  while (first < length || second < length) {
    std::vector<KvCache::Id> sequences;
    std::vector<std::vector<std::int32_t>> tokens;
    std::vector<std::int64_t> rows;
    if (first < length) {
      sequences.push_back(both[0]);
      tokens.push_back(ids(0, first, first + 1));
      rows.push_back(first++);
    }
    if (second < length) {
      const std::int64_t end = second == 0 ? prompt : second + 1;
      sequences.push_back(both[1]);
      tokens.push_back(ids(1, second, end));
      for (; second < end; ++second) rows.push_back(length + second);
    }
    logits = decoder.step(sequences, tokens);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      compare(&logits[row * static_cast<std::size_t>(config.vocab_size)], rows[row]);
    }
  }
  EXPECT_LT(std::sqrt(difference / norm), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Families, PagedDecoding, testing::ValuesIn(test::golden_models()),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace strata
