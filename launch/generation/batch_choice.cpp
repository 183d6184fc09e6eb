#include "launch/generation/batch_choice.h"

#include <algorithm>

namespace strata {
namespace {

/// Beyond it activations and keys take more memory than is likely to be worth it.
constexpr std::int64_t kLargestBatch = 4096;

}  // namespace

std::int64_t choose_batch(const BatchOptions& options, std::int64_t texts,
                          const std::function<std::int64_t(std::int64_t)>& hidden) {
  std::int64_t batch =
      std::min(std::max<std::int64_t>(texts, 1), options.most.value_or(kUsualBatch));
  if (options.objective == Objective::kThroughput) {
    if (options.most || texts <= kUsualBatch) return batch;
    return std::clamp(hidden(batch), batch, std::min(texts, kLargestBatch));
  }
  for (std::int64_t free = hidden(batch); free < batch; free = hidden(batch)) {
    batch = std::max<std::int64_t>(free, 1);
    if (batch == 1) break;
  }
  return batch;
}

}  // namespace strata
