#include "core/model/batch.h"

#include <algorithm>

namespace strata {

std::int64_t MicroBatch::counted_labels() const noexcept {
  return std::count_if(labels.begin(), labels.end(), [](std::int32_t label) { return label >= 0; });
}

std::int64_t Batch::tokens() const noexcept {
  std::int64_t total = 0;
  for (const MicroBatch& micro_batch : micro_batches) total += micro_batch.tokens();
  return total;
}

std::int64_t Batch::counted_labels() const noexcept {
  std::int64_t total = 0;
  for (const MicroBatch& micro_batch : micro_batches) total += micro_batch.counted_labels();
  return total;
}

}  // namespace strata
