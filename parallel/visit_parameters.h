#pragma once

// Internal to the trainer. Not installed.

#include "parallel/parameter_streamer.h"

namespace strata {

/// Weights and dense accumulators of a visit, as views of flat buffers.
class VisitParameters final : public ParameterTable {
 public:
  /// @param dense_gradient of the visited block; empty: no gradients
  VisitParameters(const Visit& visit, const Partition& partition, TensorView dense_gradient = {});
  ConstTensorView weight(Parameter parameter) const override { return visit_.weight(parameter); }
  TensorView gradient(Parameter parameter) const override;

 private:
  const Visit& visit_;
  const Partition& partition_;
  TensorView dense_gradient_;
};

}  // namespace strata
