#include "parallel/visit_parameters.h"

namespace strata {

VisitParameters::VisitParameters(const Visit& visit, const Partition& partition,
                                 TensorView dense_gradient)
    : visit_(visit), partition_(partition), dense_gradient_(dense_gradient) {}

TensorView VisitParameters::gradient(Parameter parameter) const {
  const bool own = parameter->block == visit_.planned().block;
  if (dense_gradient_.empty() || !own || parameter->frozen || parameter->row_tiled) return {};
  const Placement& placement = partition_.part(parameter->block).placement(parameter);
  return dense_gradient_.flat(placement.offset, placement.numel).reshape(parameter->shape);
}

}  // namespace strata
