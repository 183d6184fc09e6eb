#include "core/model/dropout.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/model/config.h"
#include "core/model/family.h"

namespace strata {

DropoutRates chosen_dropout(const ModelConfig& config, const DropoutChoice& choice) {
  if (!choice.from_config && choice.rate == 0.0) return {};
  if (config.layer_dropout > 0.0f) {
    throw UsageError(
        fmt::format("the config leaves out whole layers (\"layerdrop\" is {}), which is not "
                    "implemented; use no dropout, or set it to 0 in config.json",
                    config.layer_dropout));
  }
  DropoutRates rates = config.dropout;
  if (choice.from_config) return rates;
  const Family* family = find_family(config.family);
  expects(family != nullptr, "the config has no family");
  if (family->keys.residual_dropout == nullptr) {
    throw UsageError(
        fmt::format("dropout of {}: a {} model has dropout of attention probabilities only, at the "
                    "rate of \"{}\" in config.json; use from-config or 0",
                    choice.rate, config.family, family->keys.attention_dropout));
  }
  const auto rate = static_cast<float>(choice.rate);
  rates.residual = rate;
  if (family->keys.embedding_dropout != nullptr) rates.embedding = rate;
  return rates;
}

std::string describe(const DropoutRates& rates) {
  std::string text;
  const auto add = [&text](float rate, const char* what) {
    if (rate > 0.0f) text += fmt::format("{}{} of {}", text.empty() ? "" : ", ", rate, what);
  };
  add(rates.embedding, "the embedding");
  add(rates.residual, "what attention and MLP add");
  add(rates.attention, "attention probabilities");
  return text;
}

}  // namespace strata
