#pragma once

#include <cstdint>

namespace strata {

/// What passes of a generating model move and compute. A pass has any number of tokens, of prompts
/// or generated, and reads every weight once.
struct GenerationCost {
  double streamed_bytes = 0;         ///< weights read from drives, each pass
  double weight_bytes = 0;           ///< weights that products read from memory, each pass
  double operations_per_token = 0;   ///< of products outside the head
  double operations_per_logits = 0;  ///< of the head, for each token whose logits are wanted
  double kv_bytes_per_token = 0;     ///< keys and values, all layers
};

/// What a machine can do, per second; 0: that is no limit here.
struct GenerationRates {
  double stream = 0;      ///< bytes from drives
  double memory = 0;      ///< bytes that products and attention read
  double operations = 0;  ///< floating-point operations of products
};

/// The work of one pass.
struct PassLoad {
  double tokens = 0;
  double logits = 0;           ///< tokens among them whose logits are wanted
  double attended_tokens = 0;  ///< whose keys and values are read, summed over sequences
};

enum class GenerationBound : std::uint8_t { kStream, kCompute, kMemory };
const char* name(GenerationBound bound) noexcept;

/// The least seconds of a pass on each lane. They run side by side.
struct PassTime {
  double stream = 0;
  double compute = 0;
  double memory = 0;

  double seconds() const noexcept;         ///< of the slowest lane
  GenerationBound bound() const noexcept;  ///< the slowest lane
};

PassTime pass_time(const GenerationCost& cost, const GenerationRates& rates, const PassLoad& load);

/// Texts that begin together and get equally long.
struct GenerationShape {
  std::int64_t batch = 1;
  std::int64_t prompt = 1;     ///< tokens of each
  std::int64_t generated = 1;  ///< tokens of each
};

/// The least time in which a shape can be generated. The pass that computes the prompts gives the
/// first token; each of the others follows in a pass of its own.
struct GenerationRoofline {
  PassTime prefill;
  PassTime decode;               ///< of a pass, at the mean length of the texts
  double seconds = 0;            ///< of everything
  double tokens_per_second = 0;  ///< generated ones
};

GenerationRoofline generation_roofline(const GenerationCost& cost, const GenerationRates& rates,
                                       const GenerationShape& shape);

/// Generated tokens per second where passes mix prompts and next tokens, so that the lanes are busy
/// at once all the time: what texts that come and go can reach.
double mixed_tokens_per_second(const GenerationCost& cost, const GenerationRates& rates,
                               const GenerationShape& shape);

/// Tokens in a pass from which on computing takes longer than streaming; infinite where computing
/// is no limit, 0 where nothing is streamed.
double crossing_batch(const GenerationCost& cost, const GenerationRates& rates);

}  // namespace strata
