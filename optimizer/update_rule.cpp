#include "optimizer/update_rule.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

class DecayEverywhere final : public UpdateRule {
 public:
  explicit DecayEverywhere(std::unique_ptr<UpdateRule> rule) : rule_(std::move(rule)) {}

  void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
              const UpdateStep& step, int threads) const override {
    std::vector<UpdateSegment> all(segments.begin(), segments.end());
    for (UpdateSegment& segment : all) segment.decay = true;
    rule_->update(chunk, all, step, threads);
  }
  StateSections state_sections() const noexcept override { return rule_->state_sections(); }

 private:
  std::unique_ptr<UpdateRule> rule_;
};

}  // namespace

std::unique_ptr<UpdateRule> decay_everywhere(std::unique_ptr<UpdateRule> rule) {
  return std::make_unique<DecayEverywhere>(std::move(rule));
}

void check_beta(const char* rule, const char* name, double beta) {
  if (!(beta >= 0.0 && beta < 1.0)) {
    throw UsageError(fmt::format("{}: {} is {}; choose it from [0, 1)", rule, name, beta));
  }
}

void check_not_negative(const char* rule, const char* name, double value) {
  if (!(value >= 0.0 && std::isfinite(value))) {
    throw UsageError(
        fmt::format("{}: {} is {}; choose a finite value of 0 or more", rule, name, value));
  }
}

void check_update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
                  const UpdateStep& step, int threads, StateSections sections) {
  expects(step.step >= 1, "an update needs a step of 1 or more");
  expects(threads >= 1, "an update needs at least one thread");
  expects(chunk.numel >= 0, "an update chunk has a negative number of elements");
  expects(chunk.gradient_dtype == Dtype::kF32 || chunk.gradient_dtype == Dtype::kBf16 ||
              chunk.gradient_dtype == Dtype::kF16,
          "the gradient of an update is fp32, bf16 or fp16");
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
