#pragma once

// Internal to the trainer. Not installed.

#include <vector>

#include "parallel/trainer_state.h"
#include "parallel/visit_parameters.h"

namespace strata {

/// One block's turn in the backward phase, connected to the trainer's memory and lanes.
class TrainerVisit final : public BackwardVisit {
 public:
  TrainerVisit(Trainer::State& state, const Visit& visit, TensorView dense_gradient,
               float loss_scale, bool wants_gradients);

  int micro_batches() const override { return state_.micro_batches(); }
  const DeviceBatch& batch(int micro_batch) const override;
  bool wants_gradients() const override { return wants_gradients_; }
  Graph make_graph(bool recording) override;
  TensorView input(int micro_batch) override;
  TensorView output_gradient(int micro_batch) override;
  bool wants_input_gradient() const override { return block_ > state_.plan.lowest(); }
  void set_input_gradient(int micro_batch, ConstTensorView gradient) override;
  TensorView begin_rows(Parameter parameter, std::int64_t row_begin, std::int64_t rows) override;
  void finish_rows() override { state_.gradients.finish_rows(); }
  float loss_scale() const override { return loss_scale_; }
  void add_losses(ConstTensorView losses) override;

  /// Of all micro-batches; waits for the compute lane.
  double loss_sum();

 private:
  Trainer::State& state_;
  int block_;
  bool last_;
  bool wants_gradients_;
  float loss_scale_;
  VisitParameters parameters_;
};

}  // namespace strata
