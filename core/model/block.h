#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/graph.h"
#include "core/model/parameter.h"

namespace strata {

/// The integers of one micro-batch on the device, all int32 [T], T = sequences * tokens.
struct DeviceBatch {
  ConstTensorView ids;
  ConstTensorView labels;  ///< negative: not counted
  ConstTensorView positions;
  ConstTensorView first_key;  ///< empty: every token sees its whole sequence up to itself
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;          ///< of one sequence
  std::int64_t first_sequence = 0;  ///< as Batch::first_sequence, of this micro-batch
  /// Number of its first token since the run began, over all ranks: what random numbers go by.
  std::int64_t first_row() const noexcept { return first_sequence * tokens; }
};

/// Keys and values of a block that attends.
struct KvLayer {
  std::int64_t heads = 0;      ///< G
  std::int64_t head_size = 0;  ///< D
  std::int64_t window = 0;     ///< tokens that are looked back on at most; 0: all
};

/// Options of a declared parameter beside name and shape.
struct ParameterOptions {
  Initializer initializer = Initializer::constant(0.0f);
  bool decay = true;
  bool frozen = false;
  bool row_tiled = false;
};

/// Everything a block does when its turn in the backward phase comes, for all micro-batches.
/// Implemented by the trainer; blocks see neither ranks nor where bytes rest.
class BackwardVisit {
 public:
  virtual ~BackwardVisit() = default;

  virtual int micro_batches() const = 0;
  virtual const DeviceBatch& batch(int micro_batch) const = 0;
  /// False for evaluation of the last block: only the loss is wanted, no gradients.
  virtual bool wants_gradients() const = 0;
  /// A graph over the visit's parameters.
  virtual Graph make_graph(bool recording) = 0;

  /// The activation that the block got in the forward phase; empty for the first block.
  virtual TensorView input(int micro_batch) = 0;
  /// The gradient of the block's output, which may overwrite it; empty for the last block.
  virtual TensorView output_gradient(int micro_batch) = 0;
  /// False where nothing below the block is trained: what is then given to set_input_gradient() is
  /// ignored, and best not computed.
  virtual bool wants_input_gradient() const = 0;
  /// Hands on a copy of the gradient of input(), if it is wanted. Ends the use of input(), whose
  /// memory may go with this call.
  virtual void set_input_gradient(int micro_batch, ConstTensorView gradient) = 0;

  /// A zeroed fp32 tile [rows, columns] for rows [row_begin, ...) of a row-tiled parameter's
  /// gradient. One tile is open at a time.
  virtual TensorView begin_rows(Parameter parameter, std::int64_t row_begin, std::int64_t rows) = 0;
  /// Sends the open tile, which holds the sum over all micro-batches, on its way.
  virtual void finish_rows() = 0;

  /// 1 / counted labels of the whole step: the weight of each token's loss.
  virtual float loss_scale() const = 0;
  /// Takes the losses of a micro-batch's tokens, fp32 [T], into the step's sum.
  virtual void add_losses(ConstTensorView losses) = 0;
};

/// A piece of a model that is streamed as a whole: its parameters, and its mathematics as
/// forward(). Blocks are immutable once their model is built, but for what Model::freeze() marks,
/// and know nothing about memory, ranks or precision.
class Block {
 public:
  explicit Block(std::string name) : name_(std::move(name)) {}
  virtual ~Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  const std::string& name() const noexcept { return name_; }
  std::span<const std::unique_ptr<ParameterSpec>> parameters() const noexcept {
    return parameters_;
  }
  /// Parameters of earlier blocks that this one reads too (tied tables).
  std::span<const Parameter> borrowed() const noexcept { return borrowed_; }
  /// Whether any parameter of its own is not frozen.
  bool trainable() const noexcept;

  /// Output [T, C] of one micro-batch. `input` is the output of the block before; the first gets
  /// none.
  virtual Value forward(Graph& graph, const Value& input, const DeviceBatch& batch) const = 0;

  /// Recomputes and differentiates every micro-batch. Override it only to do something else than
  /// forward() on a tape, micro-batch by micro-batch.
  virtual void backward(BackwardVisit& visit) const;
  /// What its Graph::attention() keeps of each token; none: forward() does not call it. It may call
  /// it once.
  virtual std::optional<KvLayer> kv_layer() const { return std::nullopt; }
  /// A table of its own of which forward() reads only the rows that DeviceBatch::ids name, by
  /// Graph::embedding(), and no other use of the ids is made; null: there is none.
  virtual Parameter looked_up() const { return nullptr; }
  /// Whether backward() reads the block's own weights: where it does not, they are not fetched.
  virtual bool backward_needs_weights() const { return true; }

 protected:
  /// Adds a parameter named "<block>.<name>".
  Parameter declare(const std::string& name, Shape shape, const ParameterOptions& options);
  /// Shares a parameter of an earlier block. @return `parameter`
  Parameter borrow(Parameter parameter);

 private:
  friend class Model;
  std::string name_;
  std::vector<std::unique_ptr<ParameterSpec>> parameters_;
  std::vector<Parameter> borrowed_;
};

/// The last block: its forward() gives the loss of each token, fp32 [T], 0 where labels do not
/// count.
class Loss : public Block {
 public:
  using Block::Block;
  /// Losses, and with visit.wants_gradients() their gradients, of all micro-batches.
  void backward(BackwardVisit& visit) const override;
  /// What the loss is taken of: all logits [T, V] of an activation, fp32.
  /// @throws Error where the block does not say: nothing can be generated with the model
  virtual Value logits(Graph& graph, const Value& input) const;
};

/// A fixed list of blocks, the last of which is the Loss.
class Model {
 public:
  /// @throws Error when a name repeats or a borrowed parameter belongs to no earlier block
  Model(std::vector<std::unique_ptr<Block>> blocks, std::unique_ptr<Loss> loss,
        std::int64_t hidden_size, std::int64_t vocabulary_size, std::int64_t position_count = 0);

  int block_count() const noexcept { return static_cast<int>(blocks_.size()); }
  const Block& block(int index) const { return *blocks_.at(static_cast<std::size_t>(index)); }
  /// The last block.
  const Loss& loss() const { return *loss_; }
  /// Elements per token between blocks.
  std::int64_t hidden_size() const noexcept { return hidden_size_; }
  /// Ids and labels are below it.
  std::int64_t vocabulary_size() const noexcept { return vocabulary_size_; }
  /// Positions are below it; 0: of any size.
  std::int64_t position_count() const noexcept { return position_count_; }
  std::int64_t parameter_count() const noexcept;
  /// @return null if there is none of that name
  Parameter find(const std::string& name) const noexcept;

  /// From now on the parameter gets no gradient and no update. Before anything is planned for the
  /// model. @throws Error if there is none of that name
  void freeze(const std::string& name);
  /// Of every parameter.
  void freeze_all() noexcept;
  /// Elements of parameters that are not frozen.
  std::int64_t trainable_count() const noexcept;
  /// The first block with a trainable parameter: none below it has a backward visit.
  /// block_count() if everything is frozen.
  int lowest_trainable() const noexcept;

 private:
  std::vector<std::unique_ptr<Block>> blocks_;
  const Loss* loss_;
  std::int64_t hidden_size_;
  std::int64_t vocabulary_size_;
  std::int64_t position_count_;
};

}  // namespace strata
