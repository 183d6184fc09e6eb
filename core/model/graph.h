#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/model/parameter.h"
#include "core/model/workspace.h"
#include "core/ops.h"

namespace strata {

class Value;

/// Where gradients of one value are collected. Internal to Graph.
struct GradientSlot;

/// An activation: a tensor on the device that lives as long as a Value (or the tape) refers to it.
/// A cheap handle. Default-constructed: no tensor.
class Value {
 public:
  Value() = default;
  Value(TensorView view, std::shared_ptr<WorkspaceBlock> memory, std::shared_ptr<GradientSlot> slot)
      : view_(view), memory_(std::move(memory)), slot_(std::move(slot)) {}

  const TensorView& view() const noexcept { return view_; }
  const Shape& shape() const noexcept { return view_.shape(); }
  explicit operator bool() const noexcept { return !view_.empty(); }
  bool requires_gradient() const noexcept { return slot_ != nullptr; }

 private:
  friend class Graph;
  /// Whether nobody else refers to the memory, so that it may be overwritten.
  bool unique() const noexcept { return memory_ && memory_.use_count() == 1; }

  TensorView view_;
  std::shared_ptr<WorkspaceBlock> memory_;
  std::shared_ptr<GradientSlot> slot_;
};

/// Where a block's parameters lie during a visit.
class ParameterTable {
 public:
  virtual ~ParameterTable() = default;
  virtual ConstTensorView weight(Parameter parameter) const = 0;  ///< compute dtype
  /// fp32 accumulator of the gradient; empty where none is wanted.
  virtual TensorView gradient(Parameter parameter) const = 0;
};

/// The operations of Ops as functions of values, with a small tape: recording, each one notes how
/// its gradient is computed, and backward() runs the notes in reverse. Not recording (forward
/// visits, evaluation, generation), it only computes, and memory goes as soon as the values do.
///
/// Everything is enqueued on one stream. Parameter gradients are added to ParameterTable::gradient.
class Graph {
 public:
  /// The arguments are borrowed and outlive the graph. `compute` is fp32, bf16 or fp16.
  /// @param randomness key of one block in one step, the same in all of its visits; none: nothing
  /// is dropped, as in evaluation
  Graph(Ops& ops, Stream& stream, Workspace& workspace, const ParameterTable& parameters,
        Dtype compute, bool recording, std::optional<std::uint64_t> randomness = {});

  Graph(const Graph&) = delete;  // the tape refers to its graph
  Graph& operator=(const Graph&) = delete;

  Ops& ops() const noexcept { return ops_; }
  Stream& stream() const noexcept { return stream_; }
  Dtype compute_dtype() const noexcept { return compute_; }
  bool recording() const noexcept { return recording_; }
  const ParameterTable& parameters() const noexcept { return parameters_; }

  /// From now on attention() takes its rows for those of `sequences`: their keys and values are
  /// appended to the pages of this layer, and queries attend over the pages. Not while recording.
  /// Both are borrowed and outlive the graph's work.
  void attend_over(const PagedKv& pages, std::span<const SequenceRows> sequences);

  /// A tensor that lies elsewhere and outlives the graph, as a value.
  Value input(TensorView tensor, bool requires_gradient);
  /// The same without a gradient.
  Value constant(ConstTensorView tensor) {
    return input({const_cast<void*>(tensor.data()), tensor.dtype(), tensor.shape()}, false);
  }
  /// A value of another graph on the same workspace, with a gradient of this one.
  Value watched(const Value& value) {
    return {value.view_, value.memory_, input(value.view_, true).slot_};
  }
  /// Fresh memory of the workspace, content unspecified.
  Value allocate(Dtype dtype, Shape shape);

  // Shapes as in core/ops.h. A null parameter is left out. Recording, a parameter that is not
  // frozen must have an accumulator: the gradients of row-tiled tables and of those that belong to
  // another block leave by BackwardVisit::begin_rows() instead, and using them here is an Error.

  Value linear(const Value& x, Parameter weight, Parameter bias);
  Value embedding(ConstTensorView ids, Parameter table);
  /// x + table[ids + first_row], in the memory of x.
  Value add_embedding(Value x, ConstTensorView ids, Parameter table, std::int64_t first_row = 0);
  /// Of each group of weight->shape[0] elements of a row: the whole row, or every head.
  Value rms_norm(const Value& x, Parameter weight, float epsilon);
  Value layer_norm(const Value& x, Parameter weight, Parameter bias, float epsilon);
  /// Rotates in the memory of x: pass a value that nothing else needs.
  Value rotary(Value x, std::int64_t head_size, ConstTensorView positions,
               ConstTensorView inverse_frequency, float magnitude);
  Value attention(const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
                  ConstTensorView first_key);
  Value activation(Activation f, const Value& x);
  Value gated_activation(Activation f, const Value& gate, const Value& up);
  Value add(const Value& a, const Value& b);
  /// In the memory of x: pass a value that nothing else needs.
  Value dropout(Value x, const Dropout& dropout);
  /// The dropout of use `use` of the block, which no other use of it may have, on rows from
  /// `first_row` on. Its rate is 0 where the graph drops nothing.
  Dropout make_dropout(float rate, std::uint64_t use, std::int64_t first_row) const;
  /// Loss of each token, fp32 [T], 0 where the label does not count. Keeps all logits: for small
  /// vocabularies; the transformer's head works in tiles instead.
  Value cross_entropy(const Value& logits, ConstTensorView labels);

  /// What backward() does for one operation: given the gradient of its output, add to those of its
  /// inputs with contribute(), and to parameters' accumulators. For operations of one's own.
  using BackwardFunction = std::function<void(const Value& output_gradient)>;
  /// Makes `output` the result of an operation with gradient function `backward`.
  Value record(Value output, BackwardFunction backward);
  /// Adds to the gradient of `x`: `compute` overwrites a tensor of x's shape with the contribution.
  /// Does nothing where x needs no gradient.
  void contribute(const Value& x, const std::function<void(TensorView)>& compute);
  /// The same where the contribution exists already.
  void contribute(const Value& x, Value gradient);

  /// Runs the tape from `output`, whose gradient is `seed`, and empties it.
  void backward(const Value& output, Value seed);
  /// Runs the tape from the losses of tokens: the gradient of loss_scale() times their sum. An
  /// operation that ends in a loss multiplies by loss_scale() itself and ignores the gradient it is
  /// given.
  void backward_loss(const Value& loss) { backward(loss, loss); }
  float loss_scale() const noexcept { return loss_scale_; }
  void set_loss_scale(float scale) noexcept { loss_scale_ = scale; }
  /// The gradient that backward() left for an input; no value if nothing reached it.
  Value take_gradient(const Value& input);

 private:
  struct Record {
    std::shared_ptr<GradientSlot> output;
    BackwardFunction backward;
  };

  bool trainable(Parameter parameter) const;
  Value attention_over_pages(const AttentionShape& shape, const Value& q, const Value& k,
                             const Value& v);

  Ops& ops_;
  Stream& stream_;
  Workspace& workspace_;
  const ParameterTable& parameters_;
  Dtype compute_;
  bool recording_;
  std::optional<std::uint64_t> randomness_;
  float loss_scale_ = 1.0f;
  const PagedKv* pages_ = nullptr;  // null: attention within the batch
  std::span<const SequenceRows> sequences_;
  std::vector<Record> tape_;
};

}  // namespace strata
