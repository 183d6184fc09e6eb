#include "optimizer/update_rule.h"

#include "core/error.h"
#include "optimizer/update_parts.h"

namespace strata {

void check_update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
                  const UpdateStep& step, int threads, StateSections sections) {
  expects(step.step >= 1, "an update needs a step of 1 or more");
  expects(threads >= 1, "an update needs at least one thread");
  expects(chunk.numel >= 0, "an update chunk has a negative number of elements");
  expects(chunk.gradient_dtype == Dtype::kF32 || chunk.gradient_dtype == Dtype::kBf16,
          "the gradient of an update is fp32 or bf16");
  if (chunk.numel > 0) {
    expects(chunk.hi && chunk.lo && chunk.gradient, "an update chunk lacks hi, lo or its gradient");
    expects(chunk.m || !sections.m, "an update chunk lacks section m, which this rule uses");
    expects(chunk.v || !sections.v, "an update chunk lacks section v, which this rule uses");
  }
  std::int64_t position = 0;
  for (const UpdateSegment& segment : segments) {
    expects(segment.begin >= position, "update segments must ascend and not overlap");
    expects(segment.end >= segment.begin, "an update segment ends before it begins");
    position = segment.end;
  }
  expects(position <= chunk.numel, "an update segment reaches beyond its chunk");
}

}  // namespace strata
