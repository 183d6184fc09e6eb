#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/model/batch.h"
#include "core/model/block.h"
#include "parallel/trainer.h"

namespace strata::test {

/// All parameters of a model in ordinary host memory, and full fp32 gradients of them.
class PlainParameters final : public ParameterTable {
 public:
  PlainParameters(const Model& model, Dtype compute, const ParameterSource& source);

  /// The weight in the compute dtype: of bf16 the high half that a trainer computes with.
  ConstTensorView weight(Parameter parameter) const override;
  /// Empty for frozen parameters, and for row-tiled ones and those of blocks other than visit()'s,
  /// whose gradients leave by tiles.
  TensorView gradient(Parameter parameter) const override;
  void visit(int block) { visited_ = block; }

  std::span<const float> values(Parameter parameter) const { return at(parameter).values; }
  void set_values(Parameter parameter, std::span<const float> values);
  /// Gradient since clear_gradients(), tiles included.
  std::span<const float> full_gradient(Parameter parameter) const;
  void add_tile(Parameter parameter, std::int64_t row_begin, std::span<const float> tile);
  void clear_gradients();

 private:
  struct Stored {
    std::vector<float> values;
    Buffer weight;
    mutable std::vector<float> gradient;
  };
  const Stored& at(Parameter parameter) const { return stored_.at(parameter); }

  Dtype compute_;
  int visited_ = -1;
  std::map<Parameter, Stored> stored_;
};

/// A model run without a trainer: every activation is kept, every visit has a workspace of its own.
class PlainModel {
 public:
  /// @param model borrowed
  PlainModel(const Model& model, Dtype compute, const ParameterSource& source);

  /// Losses of all micro-batches' tokens one after the other, and with `gradients` their gradient:
  /// that of loss_scale times the sum of losses.
  std::vector<float> run(const Batch& batch, float loss_scale, bool gradients = true);
  /// [T, V] of micro-batch `micro_batch` of the last run(). @pre the loss is a TransformerHead
  std::vector<float> logits(int micro_batch);

  /// From now on run() drops what a trainer with this seed drops in this step; before: nothing.
  void draw(std::uint64_t seed, std::uint64_t step) { seed_ = seed, step_ = step; }

  const Model& model() const noexcept { return model_; }
  PlainParameters& parameters() noexcept { return parameters_; }
  /// Bytes of workspace that a block's visits of the last run() took at the highest.
  std::size_t forward_peak(int block) const { return forward_peaks_.at(index(block)); }
  std::size_t backward_peak(int block) const { return backward_peaks_.at(index(block)); }

 private:
  friend class PlainVisit;
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  TensorView activation(int block, int micro_batch);  ///< output of `block`, [T, C]
  std::optional<std::uint64_t> randomness(int block) const;

  const Model& model_;
  Dtype compute_;
  std::optional<std::uint64_t> seed_;
  std::uint64_t step_ = 0;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = make_inline_stream();
  PlainParameters parameters_;
  Batch batch_;
  std::vector<DeviceBatch> device_batches_;
  std::vector<std::vector<Buffer>> activations_;  // [block][micro-batch]
  std::vector<Buffer> gradients_;                 // [micro-batch]
  std::vector<float> losses_;
  std::vector<std::size_t> forward_peaks_, backward_peaks_;
};

}  // namespace strata::test
