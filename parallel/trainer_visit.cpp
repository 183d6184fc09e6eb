#include "parallel/trainer_visit.h"

#include <numeric>

namespace strata {

TrainerVisit::TrainerVisit(Trainer::State& state, const Visit& visit, TensorView dense_gradient,
                           float loss_scale, bool wants_gradients)
    : state_(state),
      block_(visit.planned().block),
      last_(block_ + 1 == state.model.block_count()),
      wants_gradients_(wants_gradients),
      loss_scale_(loss_scale),
      parameters_(visit, state.partition, dense_gradient) {
  state.losses.clear();
}

const DeviceBatch& TrainerVisit::batch(int micro_batch) const {
  return state_.batch.at(static_cast<std::size_t>(micro_batch));
}

Graph TrainerVisit::make_graph(bool recording) {
  return Graph(state_.context.device.ops(), *state_.compute, state_.workspace, parameters_,
               state_.options.placement.compute, recording, state_.randomness(block_));
}

TensorView TrainerVisit::input(int micro_batch) {
  return block_ == 0 ? TensorView() : state_.boundary_input(block_ - 1, micro_batch);
}

TensorView TrainerVisit::output_gradient(int micro_batch) {
  if (last_) return {};
  return state_.boundary_gradients.at(static_cast<std::size_t>(micro_batch));
}

void TrainerVisit::set_input_gradient(int micro_batch, ConstTensorView gradient) {
  if (wants_input_gradient()) {
    const TensorView& home = state_.boundary_gradients.at(static_cast<std::size_t>(micro_batch));
    state_.context.device.copy(gradient, home, *state_.compute);
  }
  state_.boundaries.drop(block_ - 1, micro_batch, *state_.compute);
}

TensorView TrainerVisit::begin_rows(Parameter parameter, std::int64_t row_begin,
                                    std::int64_t rows) {
  return state_.gradients.begin_rows(parameter, row_begin, rows);
}

void TrainerVisit::add_losses(ConstTensorView losses) {
  std::vector<double>& sums = state_.losses;
  expects(sums.size() < state_.batch.size(), "losses were added twice for a micro-batch");
  sums.push_back(0.0);
  state_.context.device.ops().sum(losses, &sums.back(), *state_.compute);
  if (!wants_gradients_) {
    state_.boundaries.drop(block_ - 1, static_cast<int>(sums.size()) - 1, *state_.compute);
  }
}

double TrainerVisit::loss_sum() {
  state_.compute->synchronize();
  return std::accumulate(state_.losses.begin(), state_.losses.end(), 0.0);
}

}  // namespace strata
