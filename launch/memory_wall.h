#pragma once

#include <cstdint>

#include "core/model/config.h"

namespace strata {

/// What training a model takes when everything stays in memory: the "memory wall" of Rajbhandari et
/// al., ZeRO-Infinity (2021), section 3, with its formulas for mixed precision. Bytes.
struct MemoryWall {
  // Assumptions.
  std::int64_t sequences = 0;  ///< in flight over all devices
  std::int64_t sequence_length = 0;
  int devices = 0;

  double states = 0;  ///< 20 per parameter: fp16 weight and gradient 2 + 2, fp32 weight, m, v and
                      ///< gradient 4 each
  double activations = 0;    ///< of all layers without recomputation: 2 tokens (16 h + 2 H s) L
  double checkpoints = 0;    ///< instead of them with recomputation: 2 tokens h L
  double state_working = 0;  ///< per device: fp16 weight and gradient of the largest product
  double activation_working = 0;  ///< per device: one layer's activations of its sequences
  double total() const noexcept {
    return states + activations + devices * (state_working + activation_working);
  }
};

/// @param devices that share the sequences
MemoryWall memory_wall(const ModelConfig& config, double parameters, std::int64_t sequences,
                       std::int64_t sequence_length, int devices);

}  // namespace strata
