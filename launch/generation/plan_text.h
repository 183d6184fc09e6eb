#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/generation_bench/roofline.h"
#include "launch/step_rates.h"
#include "parallel/generation_plan.h"

namespace strata {

/// What is to be generated, by all ranks.
struct GenerationWork {
  std::int64_t texts = 0;          ///< 0: not known
  std::int64_t prompt_tokens = 0;  ///< of all of them
  std::int64_t new_tokens = 0;     ///< at most
};

/// The same job with weights in another format.
struct OtherWeights {
  std::string name;  ///< "int4"
  GenerationPlan plan;
};

/// Rows, each with its logits, that a rank computes in a pass while the weights come from the drive
/// and from memory: so many cost no more time than one. From 1 to 65536.
std::int64_t hidden_rows(const GenerationPlan& plan, const KnownRates& rates, int ranks);

/// "the drive", "products", "memory".
const char* words(GenerationBound bound);

/// What binds a pass with a token for each text in flight, of those that the plan expects, once its
/// weights are there.
GenerationBound computing_bound(const GenerationPlan& plan, const GeneratorOptions& options,
                                std::uint64_t kv_token_bytes, int ranks, const GenerationWork& work,
                                const KnownRates& rates);

/// What people should know before work: where memory goes, what a pass takes on each lane, what
/// binds, tokens per second and the time that is left. Times are those of the machine's rates, with
/// a note where these were not measured.
/// @param options of a rank, @param kv_token_bytes of one token's keys and values
std::vector<std::string> generation_plan_lines(const GenerationPlan& plan,
                                               const GeneratorOptions& options,
                                               std::uint64_t kv_token_bytes, int ranks,
                                               const GenerationWork& work, const KnownRates& rates,
                                               const std::vector<OtherWeights>& others);

}  // namespace strata
