#pragma once

#include <cstdint>

#include "core/model/config.h"

namespace strata::cli {

/// Tokens of a sequence: `given` by --sequence_length, or where that is 0 the smaller of 1024 and
/// what the model was made for. Rotary positions go on beyond that.
/// @throws UsageError for more than a table of learned positions has
std::int64_t chosen_sequence_length(std::int64_t given, const ModelConfig& config);

}  // namespace strata::cli
