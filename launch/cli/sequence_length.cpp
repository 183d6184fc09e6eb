#include "launch/cli/sequence_length.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace strata::cli {

std::int64_t chosen_sequence_length(std::int64_t given, const ModelConfig& config) {
  constexpr std::int64_t kUsual = 1024;
  if (given == 0) return std::min(kUsual, config.max_positions);
  if (config.positions == PositionKind::kLearned && given > config.max_positions) {
    throw UsageError(
        fmt::format("--sequence_length: {} is more than the model's {} positions; use {} or less",
                    given, config.max_positions, config.max_positions));
  }
  return given;
}

}  // namespace strata::cli
