#include "core/model/graph.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>

#include "core/model/initial_values.h"
#include "core/model/transformer.h"
#include "core/random.h"
#include "parallel/block_costs.h"
#include "tests/support/plain_visit.h"

namespace strata {
namespace {

using test::PlainModel;

constexpr std::int64_t kVocabulary = 19;
constexpr std::int64_t kHidden = 16;
constexpr std::int64_t kHeadSize = 8;  // two query heads, one of keys and values
constexpr std::int64_t kPositions = 9;

ParameterOptions normal(float deviation) { return {.initializer = Initializer::normal(deviation)}; }

/// Tokens and positions from dense tables, on the tape.
class Lookup final : public Block {
 public:
  Lookup()
      : Block("lookup"),
        tokens_(declare("tokens", {kVocabulary, kHidden}, normal(0.5f))),
        positions_(declare("positions", {kPositions, kHidden}, normal(0.5f))) {}
  Value forward(Graph& graph, const Value&, const DeviceBatch& batch) const override {
    return graph.add_embedding(graph.embedding(batch.ids, tokens_), batch.positions, positions_);
  }

 private:
  Parameter tokens_, positions_;
};

/// Every operation of a Graph, with gradients that are shared, summed and thrown away.
class Everything final : public Block {
 public:
  explicit Everything(const std::string& name, const std::string& frozen) : Block(name) {
    const auto weight = [&](const std::string& own, Shape shape) {
      return declare(own, shape,
                     {.initializer = Initializer::normal(0.3f), .frozen = own == frozen});
    };
    norm_ = weight("norm", {kHidden});
    q_ = weight("q", {kHidden, kHidden});
    q_bias_ = weight("q_bias", {kHidden});
    r_ = weight("r", {kHidden, kHidden});
    k_ = weight("k", {kHeadSize, kHidden});
    v_ = weight("v", {kHeadSize, kHidden});
    o_ = weight("o", {kHidden, kHidden});
    second_norm_ = weight("second_norm", {kHidden});
    second_norm_bias_ = weight("second_norm_bias", {kHidden});
    gate_ = weight("gate", {24, kHidden});
    up_ = weight("up", {24, kHidden});
    down_ = weight("down", {kHidden, 24});
    side_ = weight("side", {kHidden, kHidden});
  }

  Value forward(Graph& graph, const Value& x, const DeviceBatch& batch) const override {
    const Value h = graph.add(x, attend(graph, graph.rms_norm(x, norm_, 1e-5f), batch));
    const Value n = graph.layer_norm(h, second_norm_, second_norm_bias_, 1e-5f);
    const Value gated = graph.gated_activation(Activation::kSilu, graph.linear(n, gate_, nullptr),
                                               graph.linear(n, up_, nullptr));
    const Value side = graph.activation(Activation::kGeluNew, graph.linear(h, side_, nullptr));
    const Value dropped = graph.dropout(graph.linear(gated, down_, nullptr),
                                        graph.make_dropout(0.2f, 0, batch.first_row()));
    const Value sum = graph.add(h, dropped);
    return graph.add(graph.add(sum, sum), half(graph, graph.add(side, h)));
  }

 private:
  /// The sum below gives one gradient to both of its terms, of which rotary turns its own back.
  Value attend(Graph& graph, const Value& n, const DeviceBatch& batch) const {
    const AttentionShape shape{.sequences = batch.sequences,
                               .tokens = batch.tokens,
                               .heads = 2,
                               .kv_heads = 1,
                               .head_size = kHeadSize,
                               .scale = 0.4f,
                               .dropout = graph.make_dropout(0.3f, 1, batch.first_row())};
    const Value turned = rotate(graph, graph.linear(n, q_, q_bias_), batch);
    const Value q = graph.add(turned, graph.linear(n, r_, nullptr));
    const Value k = rotate(graph, graph.linear(n, k_, nullptr), batch);
    const Value v = graph.linear(n, v_, nullptr);
    return graph.linear(graph.attention(shape, q, k, v, batch.first_key), o_, nullptr);
  }
  Value rotate(Graph& graph, Value x, const DeviceBatch& batch) const {
    const ConstTensorView table(frequencies_.data(), Dtype::kF32, {kHeadSize / 2});
    return graph.rotary(std::move(x), kHeadSize, batch.positions, table, 1.5f);
  }
  /// An operation that Graph does not have.
  static Value half(Graph& graph, const Value& x) {
    Value y = graph.allocate(graph.compute_dtype(), x.shape());
    graph.ops().convert(x.view(), 0.5f, y.view(), graph.stream());
    if (!x.requires_gradient()) return y;
    return graph.record(std::move(y), [&graph, x](const Value& dy) {
      graph.contribute(
          x, [&](TensorView dx) { graph.ops().convert(dy.view(), 0.5f, dx, graph.stream()); });
    });
  }

  std::array<float, kHeadSize / 2> frequencies_{1.0f, 0.3f, 0.1f, 0.03f};
  Parameter norm_, q_, q_bias_, r_, k_, v_, o_, second_norm_, second_norm_bias_, gate_, up_, down_,
      side_;
};

class DenseLoss final : public Loss {
 public:
  DenseLoss(const std::string& name, std::int64_t vocabulary, std::int64_t hidden)
      : Loss(name), weight_(declare("weight", {vocabulary, hidden}, normal(0.3f))) {}
  Value forward(Graph& graph, const Value& input, const DeviceBatch& batch) const override {
    return graph.cross_entropy(graph.linear(input, weight_, nullptr), batch.labels);
  }

 private:
  Parameter weight_;
};

Model model_of_everything(const std::string& frozen = "") {
  std::vector<std::unique_ptr<Block>> blocks;
  blocks.push_back(std::make_unique<Lookup>());
  blocks.push_back(std::make_unique<Everything>("first", frozen));
  blocks.push_back(std::make_unique<Everything>("second", ""));
  return Model(std::move(blocks), std::make_unique<DenseLoss>("loss", kVocabulary, kHidden),
               kHidden, kVocabulary);
}

/// Two micro-batches of two sequences; some labels do not count, later tokens see documents.
Batch batch_of(std::int64_t vocabulary) {
  Batch batch;
  for (std::int64_t m = 0; m < 2; ++m) {
    MicroBatch part;
    part.sequences = 2;
    part.tokens_per_sequence = kPositions;
    for (std::int64_t t = 0; t < part.tokens(); ++t) {
      const std::int64_t id = (t * 7919 + m * 31 + t * t * 13) % vocabulary;
      part.ids.push_back(static_cast<std::int32_t>(id));
      part.labels.push_back(t % 5 == 3 ? kIgnoredLabel
                                       : static_cast<std::int32_t>((id * 5 + 3) % vocabulary));
      part.positions.push_back(static_cast<std::int32_t>(t % kPositions));
      part.first_key.push_back(t % kPositions >= 5 ? 4 : 0);
    }
    batch.micro_batches.push_back(std::move(part));
  }
  return batch;
}

double loss_sum(PlainModel& plain, const Batch& batch) {
  const std::vector<float> losses = plain.run(batch, 1.0f, false);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

std::vector<Parameter> parameters_of(const Model& model) {
  std::vector<Parameter> all;
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) all.push_back(spec.get());
  }
  return all;
}

double norm_of(std::span<const float> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

/// A direction of length 1: half of it along the gradient, half of it anywhere.
std::vector<float> direction(std::span<const float> gradient, const std::string& name) {
  std::vector<float> values(gradient.size());
  fill_normal(random_key(5, name), 0, 1.0, values);
  const double own = norm_of(values), along = norm_of(gradient);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(values[i] / own + gradient[i] / along);
  }
  const double length = norm_of(values);
  for (float& value : values) value = static_cast<float>(value / length);
  return values;
}

/// The derivative of the loss along `way`, by central differences of fourth order.
double finite_difference(PlainModel& plain, const Batch& batch, Parameter parameter,
                         const std::vector<float>& way) {
  constexpr double kStep = 0.02;
  const auto start = plain.parameters().values(parameter);
  const std::vector<float> centre(start.begin(), start.end());
  const auto at = [&](double distance) {
    std::vector<float> values = centre;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(centre[i] + distance * way[i]);
    }
    plain.parameters().set_values(parameter, values);
    return loss_sum(plain, batch);
  };
  const double near = at(kStep) - at(-kStep), far = at(2 * kStep) - at(-2 * kStep);
  plain.parameters().set_values(parameter, centre);
  return (8 * near - far) / (12 * kStep);
}

std::map<Parameter, std::vector<float>> gradients_of(PlainModel& plain, const Batch& batch) {
  plain.run(batch, 1.0f);
  std::map<Parameter, std::vector<float>> gradients;
  for (const Parameter parameter : parameters_of(plain.model())) {
    const auto values = plain.parameters().full_gradient(parameter);
    gradients[parameter].assign(values.begin(), values.end());
  }
  return gradients;
}

void expect_gradients_of_finite_differences(PlainModel& plain) {
  const Batch batch = batch_of(kVocabulary);
  for (const auto& [parameter, gradient] : gradients_of(plain, batch)) {
    const std::vector<float> way = direction(gradient, parameter->name);
    const double got = std::inner_product(way.begin(), way.end(), gradient.begin(), 0.0);
    const double want = finite_difference(plain, batch, parameter, way);
    EXPECT_GT(std::abs(want), 0.01) << parameter->name;
    EXPECT_NEAR(got, want, 1e-3 * std::abs(want)) << parameter->name;
  }
}

TEST(Graph, HasTheGradientsOfFiniteDifferences) {
  const Model model = model_of_everything();
  PlainModel plain(model, Dtype::kF32, random_parameters(3));
  expect_gradients_of_finite_differences(plain);
}

TEST(Graph, HasTheGradientsOfFiniteDifferencesUnderDropout) {
  const Model model = model_of_everything();
  PlainModel plain(model, Dtype::kF32, random_parameters(3));
  const std::vector<float> without = plain.run(batch_of(kVocabulary), 1.0f, false);
  plain.draw(1, 2);
  EXPECT_NE(plain.run(batch_of(kVocabulary), 1.0f, false), without);
  expect_gradients_of_finite_differences(plain);
}

TEST(Graph, LeavesFrozenParametersAloneAndTheOthersAsTheyWere) {
  const Batch batch = batch_of(kVocabulary);
  const Model model = model_of_everything();
  PlainModel plain(model, Dtype::kF32, random_parameters(3));
  const auto want = gradients_of(plain, batch);
  for (const char* name : {"norm", "q", "q_bias", "k", "second_norm_bias", "gate", "down"}) {
    const Model partly = model_of_everything(name);
    PlainModel frozen(partly, Dtype::kF32, random_parameters(3));
    for (const auto& [parameter, gradient] : gradients_of(frozen, batch)) {
      if (parameter->frozen) {
        EXPECT_EQ(norm_of(gradient), 0.0) << name;
      } else {
        EXPECT_EQ(gradient, want.at(model.find(parameter->name)))
            << parameter->name << " beside frozen " << name;
      }
    }
  }
}

TEST(Graph, ComputesTheSameBitsWithAndWithoutATape) {
  const Batch batch = batch_of(kVocabulary);
  const Model model = model_of_everything();
  for (const Dtype compute : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    PlainModel plain(model, compute, random_parameters(3));
    const std::vector<float> without = plain.run(batch, 1.0f, false);
    EXPECT_EQ(plain.run(batch, 1.0f, true), without);
    EXPECT_GT(norm_of(without), 1.0);
  }
}

TEST(Graph, NeedsLessMemoryWithoutATape) {
  const Model model = model_of_everything();
  PlainModel plain(model, Dtype::kF32, random_parameters(3));
  plain.run(batch_of(kVocabulary), 1.0f);
  EXPECT_LT(plain.forward_peak(1), plain.backward_peak(1));
}

/// An embedding without tiles.
class DenseLookup final : public Block {
 public:
  DenseLookup(std::int64_t vocabulary, std::int64_t hidden)
      : Block("embedding"), tokens_(declare("tokens.weight", {vocabulary, hidden}, normal(0.5f))) {}
  Parameter tokens() const { return tokens_; }
  Value forward(Graph& graph, const Value&, const DeviceBatch& batch) const override {
    return graph.embedding(batch.ids, tokens_);
  }

 private:
  Parameter tokens_;
};

/// Reads a table that is not its own, or not dense, on the tape.
class LossOfTable final : public Loss {
 public:
  explicit LossOfTable(Parameter table) : Loss("loss"), table_(borrow(table)) {}
  LossOfTable()
      : Loss("loss"), table_(declare("table", {kVocabulary, kHidden}, {.row_tiled = true})) {}
  Value forward(Graph& graph, const Value& input, const DeviceBatch& batch) const override {
    return graph.cross_entropy(graph.linear(input, table_, nullptr), batch.labels);
  }

 private:
  Parameter table_;
};

/// They would be lost: nobody looks for them.
TEST(Graph, RefusesGradientsThatItHasNoPlaceFor) {
  auto lookup = std::make_unique<DenseLookup>(kVocabulary, kHidden);
  std::vector<std::unique_ptr<Loss>> losses;
  losses.push_back(std::make_unique<LossOfTable>(lookup->tokens()));
  losses.push_back(std::make_unique<LossOfTable>());
  for (std::unique_ptr<Loss>& loss : losses) {
    std::vector<std::unique_ptr<Block>> blocks;
    if (lookup) {
      blocks.push_back(std::move(lookup));
    } else {
      blocks.push_back(std::make_unique<DenseLookup>(kVocabulary, kHidden));
    }
    const Model model(std::move(blocks), std::move(loss), kHidden, kVocabulary);
    PlainModel plain(model, Dtype::kF32, random_parameters(3));
    const Batch batch = batch_of(kVocabulary);
    EXPECT_NO_THROW(plain.run(batch, 1.0f, false));
    EXPECT_THROW(plain.run(batch, 1.0f, true), Error);
    EXPECT_THROW(measure_blocks(model, {.sequences = 2, .sequence_length = 9}, Dtype::kF32), Error);
  }
}

/// A head without tiles: a norm, one product, the dense cross-entropy.
class DenseHead final : public Loss {
 public:
  explicit DenseHead(const ModelConfig& config)
      : Loss("head"),
        norm_(declare("norm.weight", {config.hidden}, {})),
        weight_(declare("weight", {config.vocab_size, config.hidden}, {})),
        epsilon_(config.norm_epsilon) {}
  Value forward(Graph& graph, const Value& input, const DeviceBatch& batch) const override {
    const Value n = graph.rms_norm(input, norm_, epsilon_);
    return graph.cross_entropy(graph.linear(n, weight_, nullptr), batch.labels);
  }

 private:
  Parameter norm_, weight_;
  float epsilon_;
};

TEST(TransformerHead, GivesInTilesWhatTheDenseOperationsGive) {
  ModelConfig config;
  config.family = "llama";
  config.vocab_size = 2 * kRowTile + 808;
  config.hidden = 32;
  config.initializer_range = 0.5f;
  config.layers = 1;
  config.heads = config.kv_heads = 2;
  config.head_size = 16;
  config.intermediate = 32;
  config.max_positions = kPositions;
  const Model tiled = make_transformer(config);
  std::vector<std::unique_ptr<Block>> dense_blocks;
  dense_blocks.push_back(std::make_unique<DenseLookup>(config.vocab_size, config.hidden));
  const Model dense(std::move(dense_blocks), std::make_unique<DenseHead>(config), config.hidden,
                    config.vocab_size);

  // Products of the layer that write into the residual are zero: the layer passes its input on.
  const auto source = [&](Parameter parameter, std::int64_t begin, std::span<float> values) {
    const bool passes = parameter->name == "layers.0.attention.o.weight" ||
                        parameter->name == "layers.0.mlp.down.weight";
    ParameterSpec same = *tiled.find(parameter->name);
    if (passes) same.initializer = Initializer::constant(0.0f);
    initial_values(same, 8, begin, values);
  };
  PlainModel in_tiles(tiled, Dtype::kF32, source), at_once(dense, Dtype::kF32, source);
  const Batch batch = batch_of(config.vocab_size);
  const std::vector<float> got = in_tiles.run(batch, 0.25f), want = at_once.run(batch, 0.25f);
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t t = 0; t < got.size(); ++t) EXPECT_NEAR(got[t], want[t], 1e-5) << t;
  for (const Parameter parameter : parameters_of(dense)) {
    const auto dense_gradient = at_once.parameters().full_gradient(parameter);
    const auto tiles = in_tiles.parameters().full_gradient(tiled.find(parameter->name));
    double worst = 0;
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(tiles[i]) - dense_gradient[i]));
    }
    EXPECT_GT(norm_of(dense_gradient), 0.1) << parameter->name;
    EXPECT_LE(worst, 1e-6 * norm_of(dense_gradient) + 1e-7) << parameter->name;
  }
}

}  // namespace
}  // namespace strata
