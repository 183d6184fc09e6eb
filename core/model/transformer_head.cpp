#include <algorithm>
#include <vector>

#include "core/model/transformer.h"

namespace strata {

TransformerHead::TransformerHead(const ModelConfig& config, Parameter tied_table)
    : Loss("head"),
      norm_kind_(config.norm),
      norm_epsilon_(config.norm_epsilon),
      vocabulary_(config.vocab_size) {
  const Initializer normal = Initializer::normal(config.initializer_range);
  if (config.final_norm) {
    norm_weight_ = declare("norm.weight", {config.hidden},
                           {.initializer = Initializer::constant(1.0f), .decay = false});
    if (config.norm_bias()) norm_bias_ = declare("norm.bias", {config.hidden}, {.decay = false});
  }
  if (config.projects_tokens()) {
    project_ = declare("project_out.weight", {config.table_width(), config.hidden},
                       {.initializer = normal});
  }
  if (tied_table != nullptr) {
    weight_ = borrow(tied_table);
  } else {
    weight_ = declare("weight", {config.vocab_size, config.table_width()},
                      {.initializer = normal, .row_tiled = true});
  }
}

Value TransformerHead::features(Graph& graph, const Value& x) const {
  Value result = x;
  if (norm_weight_ != nullptr) {
    result = norm_kind_ == NormKind::kRms
                 ? graph.rms_norm(x, norm_weight_, norm_epsilon_)
                 : graph.layer_norm(x, norm_weight_, norm_bias_, norm_epsilon_);
  }
  return project_ == nullptr ? result : graph.linear(result, project_, nullptr);
}

Value TransformerHead::logits(Graph& graph, const Value& input) const {
  const Value x = features(graph, input);
  Value result = graph.allocate(Dtype::kF32, {x.shape()[0], vocabulary_});
  graph.ops().linear(x.view(), graph.parameters().weight(weight_), {}, result.view(),
                     graph.stream());
  return result;
}

TransformerHead::Statistics TransformerHead::softmax_statistics(Graph& graph, const Value& input,
                                                                const DeviceBatch& batch) const {
  const std::int64_t tokens = input.shape()[0];
  Statistics result{.features = features(graph, input),
                    .maximum = graph.allocate(Dtype::kF32, {tokens}),
                    .sum = graph.allocate(Dtype::kF32, {tokens}),
                    .label_logit = graph.allocate(Dtype::kF32, {tokens}),
                    .gradient = {}};
  const ConstTensorView w = graph.parameters().weight(weight_);
  for (std::int64_t begin = 0; begin < vocabulary_; begin += kRowTile) {
    const std::int64_t rows = std::min(kRowTile, vocabulary_ - begin);
    const Value tile = graph.allocate(graph.compute_dtype(), {tokens, rows});
    graph.ops().linear(result.features.view(), w.rows(begin, rows), {}, tile.view(),
                       graph.stream());
    graph.ops().softmax_statistics(tile.view(), begin, batch.labels, begin == 0,
                                   result.maximum.view(), result.sum.view(),
                                   result.label_logit.view(), graph.stream());
  }
  return result;
}

Value TransformerHead::losses(Graph& graph, const Statistics& statistics,
                              const DeviceBatch& batch) const {
  Value loss = graph.allocate(Dtype::kF32, statistics.maximum.shape());
  graph.ops().cross_entropy(statistics.maximum.view(), statistics.sum.view(),
                            statistics.label_logit.view(), batch.labels, loss.view(),
                            graph.stream());
  return loss;
}

bool TransformerHead::differentiates_features(const BackwardVisit& visit) const {
  const auto trains = [](Parameter parameter) {
    return parameter != nullptr && !parameter->frozen;
  };
  return visit.wants_input_gradient() || trains(norm_weight_) || trains(norm_bias_) ||
         trains(project_);
}

Value TransformerHead::forward(Graph& graph, const Value& input, const DeviceBatch& batch) const {
  expects(!graph.recording(), "the head's gradient is computed in tiles, not on a tape");
  return losses(graph, softmax_statistics(graph, input, batch), batch);
}

void TransformerHead::backward(BackwardVisit& visit) const {
  Graph graph = visit.make_graph(false);
  std::vector<Statistics> statistics;
  for (int i = 0; i < visit.micro_batches(); ++i) {
    const Value input = graph.input(visit.input(i), false);
    Statistics found = softmax_statistics(graph, input, visit.batch(i));
    visit.add_losses(losses(graph, found, visit.batch(i)).view());
    if (!visit.wants_gradients()) continue;
    if (differentiates_features(visit)) {
      found.gradient = graph.allocate(Dtype::kF32, found.features.shape());
    }
    statistics.push_back(std::move(found));
  }
  if (!visit.wants_gradients()) return;
  const bool through = differentiates_features(visit);
  for (std::int64_t begin = 0; begin < vocabulary_; begin += kRowTile) {
    backward_tile(visit, graph, begin, std::min(kRowTile, vocabulary_ - begin), statistics);
  }
  for (int i = 0; i < visit.micro_batches(); ++i) {
    if (!through) {
      visit.set_input_gradient(i, {});
      continue;
    }
    Graph tape = visit.make_graph(true);
    const Value input = tape.input(visit.input(i), visit.wants_input_gradient());
    const Value output = features(tape, input);
    Value seed = tape.allocate(tape.compute_dtype(), output.shape());
    const Value sum = std::move(statistics[static_cast<std::size_t>(i)].gradient);
    tape.ops().convert(sum.view(), 1.0f, seed.view(), tape.stream());
    tape.backward(output, std::move(seed));
    visit.set_input_gradient(i, tape.take_gradient(input).view());
  }
}

void TransformerHead::backward_tile(BackwardVisit& visit, Graph& graph, std::int64_t row_begin,
                                    std::int64_t rows, std::vector<Statistics>& statistics) const {
  const ConstTensorView w = graph.parameters().weight(weight_).rows(row_begin, rows);
  const TensorView dw = weight_->frozen ? TensorView() : visit.begin_rows(weight_, row_begin, rows);
  for (int i = 0; i < visit.micro_batches(); ++i) {
    const Statistics& own = statistics[static_cast<std::size_t>(i)];
    const Value logits = graph.allocate(graph.compute_dtype(), {own.features.shape()[0], rows});
    graph.ops().linear(own.features.view(), w, {}, logits.view(), graph.stream());
    graph.ops().cross_entropy_backward(logits.view(), row_begin, visit.batch(i).labels,
                                       own.maximum.view(), own.sum.view(), visit.loss_scale(),
                                       logits.view(), graph.stream());
    if (own.gradient) {
      graph.ops().linear_backward_input(logits.view(), w, own.gradient.view(), row_begin > 0,
                                        graph.stream());
    }
    if (!dw.empty()) {
      graph.ops().linear_backward_weight(logits.view(), own.features.view(), dw, {},
                                         graph.stream());
    }
  }
  if (!dw.empty()) visit.finish_rows();
}

}  // namespace strata
