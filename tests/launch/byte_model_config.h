#pragma once

#include "core/model/config.h"

namespace strata::test {

/// The shape of a Llama that whole programs train and run in a moment.
inline ModelConfig byte_model_config(std::int64_t positions) {
  ModelConfig config = preset("llama-26m");
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_size = 8;
  config.intermediate = 64;
  config.max_positions = positions;
  return config;
}

}  // namespace strata::test
