#pragma once

#include <string>

namespace strata {

struct ModelConfig;

/// The shares of elements that training sets to zero, by place, each in [0, 1). What is kept is
/// divided by one minus the rate.
struct DropoutRates {
  float embedding = 0.0f;  ///< of what the embedding gives
  float residual = 0.0f;   ///< of what attention and MLP add to their input
  float attention = 0.0f;  ///< of the probabilities of attention

  bool any() const noexcept { return embedding > 0 || residual > 0 || attention > 0; }
  bool operator==(const DropoutRates&) const = default;
};

/// Which dropout a training applies.
struct DropoutChoice {
  bool from_config = false;  ///< the rates of config.json
  double rate = 0.0;  ///< else: over 0, instead of the config's embedding and residual rates,
                      ///< beside its attention rate; 0: none at all
};

/// @throws UsageError if the family has none of the places that `choice` gives a rate to, or the
/// config leaves out whole layers (OPT's layerdrop), which is not implemented
DropoutRates chosen_dropout(const ModelConfig& config, const DropoutChoice& choice);

/// "0.1 of the embedding, 0.1 of ...", for people; empty where there is none.
std::string describe(const DropoutRates& rates);

}  // namespace strata
