#pragma once

#include <memory>

#include "core/model/block.h"
#include "core/model/config.h"

namespace strata {

// Shapes in core/model: T tokens of a micro-batch, C hidden size, H query heads, G key/value heads,
// D head size, F width of the MLP, V vocabulary, L layers.

/// The decoder-only transformer of `config`: blocks "embedding", "layers.0" ... "layers.{L-1}",
/// "head".
///
///     embedding   x = (project_in) tokens[ids] (+ positions[position])
///     layer       h = x + o(attention(norm(x))),  y = h + mlp(norm(h)), or with norms behind the
///                 sums; mlp(n) = down(f(up n)) or down(f(gate n) * up n)
///     head        losses of softmax((project_out) norm(x) W^T), W = the token table when tied
///
/// `dropout` is applied in training: to x behind the embedding, to attention probabilities, and to
/// what o() and down() give. The config's own rates are not looked at: see chosen_dropout().
///
/// Parameters are named as in core/model/config.h's families after mapping: attention.{q,k,v,o},
/// attention.{q,k}_norm, mlp.{gate,up,down}, attention_norm, mlp_norm; weights of products are
/// [out, in].
Model make_transformer(const ModelConfig& config, const DropoutRates& dropout = {});

/// Final norm and vocabulary product. The logits of a batch never exist at once: losses come from
/// running softmax statistics over tiles of kRowTile vocabulary rows, gradients from a second pass
/// over the tiles, each of which leaves as soon as all micro-batches have added to it.
class TransformerHead final : public Loss {
 public:
  /// @param tied_table the token table to borrow, or null for a weight of its own
  TransformerHead(const ModelConfig& config, Parameter tied_table);

  Value forward(Graph& graph, const Value& input, const DeviceBatch& batch) const override;
  void backward(BackwardVisit& visit) const override;

  Value logits(Graph& graph, const Value& input) const override;

 private:
  /// What the second pass over the vocabulary needs from the first, of one micro-batch.
  struct Statistics {
    Value features;     // [T, table width]: what is multiplied by the table
    Value maximum;      // [T]
    Value sum;          // [T]
    Value label_logit;  // [T]
    Value gradient;     // [T, table width] fp32, of features; none where nothing below is trained
  };

  /// Norm and projection of the last layer's output, where the model has them.
  Value features(Graph& graph, const Value& x) const;
  /// Whether anything that features are made of is trained.
  bool differentiates_features(const BackwardVisit& visit) const;
  Statistics softmax_statistics(Graph& graph, const Value& input, const DeviceBatch& batch) const;
  Value losses(Graph& graph, const Statistics& statistics, const DeviceBatch& batch) const;
  void backward_tile(BackwardVisit& visit, Graph& graph, std::int64_t row_begin, std::int64_t rows,
                     std::vector<Statistics>& statistics) const;

  NormKind norm_kind_;
  float norm_epsilon_;
  std::int64_t vocabulary_;
  Parameter norm_weight_ = nullptr;
  Parameter norm_bias_ = nullptr;
  Parameter project_ = nullptr;
  Parameter weight_;
};

}  // namespace strata
