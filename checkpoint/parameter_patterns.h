#pragma once

#include <string>
#include <vector>

#include "core/model/config.h"

namespace strata {

/// Which parameters are trained, as patterns over their Hugging Face names ("*" stands for
/// anything,
/// "?" for one character, "[...]" for one of several). A name counts with and without its first
/// part ("model.", "transformer."). A tied table is found under both of its names, and parameters
/// that lie in one tensor of the file go together.
struct ParameterPatterns {
  std::vector<std::string> freeze = {};  ///< what matches is frozen
  std::vector<std::string> train = {};   ///< if any: what does not match is frozen, too

  bool empty() const noexcept { return freeze.empty() && train.empty(); }
};

/// The names, as core/model declares them, of the parameters of make_transformer(config) that the
/// patterns freeze, in the order of name_map().
/// @throws UsageError for a pattern that matches nothing, with names that are near it, and if
/// nothing is left to train
std::vector<std::string> frozen_parameters(const ModelConfig& config,
                                           const ParameterPatterns& patterns);

}  // namespace strata
