#include "launch/memory_wall.h"

#include <algorithm>

namespace strata {

MemoryWall memory_wall(const ModelConfig& config, double parameters, std::int64_t sequences,
                       std::int64_t sequence_length, int devices) {
  constexpr double kStateBytes = 20;
  constexpr double kHalf = 2;
  MemoryWall wall;
  wall.sequences = sequences;
  wall.sequence_length = sequence_length;
  wall.devices = devices;
  const auto hidden = static_cast<double>(config.hidden);
  const auto length = static_cast<double>(sequence_length);
  const double tokens = static_cast<double>(sequences) * length;
  const double layer =
      kHalf * tokens * (16 * hidden + 2 * static_cast<double>(config.heads) * length);
  wall.states = kStateBytes * parameters;
  wall.activations = layer * static_cast<double>(config.layers);
  wall.checkpoints = kHalf * tokens * hidden * static_cast<double>(config.layers);
  wall.state_working = 2 * kHalf * hidden * static_cast<double>(config.intermediate);
  wall.activation_working = layer / std::max(1, devices);
  return wall;
}

}  // namespace strata
