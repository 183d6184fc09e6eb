#include "launch/generation_bench/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/units.h"

namespace strata {
namespace {

std::optional<double> ratio(double numerator, double denominator) {
  if (numerator <= 0 || denominator <= 0) return {};
  return numerator / denominator;
}

}  // namespace

std::string GenerationTier::label() const {
  if (read_limit <= 0) return name;
  return fmt::format("{} (emulated, {}/s)", name, format_traffic(read_limit));
}

double GenerationTier::bandwidth() const noexcept {
  if (directory.empty()) return 0;
  if (read_limit <= 0) return read;
  return read > 0 ? std::min(read, read_limit) : read_limit;
}

std::optional<double> GenerationCell::tokens_per_second() const {
  if (!measured) return {};
  return ratio(static_cast<double>(measured->tokens), measured->seconds);
}

std::optional<double> GenerationCell::prompt_tokens_per_second() const {
  if (!measured) return {};
  return ratio(static_cast<double>(measured->prompt_tokens), measured->prefill_seconds);
}

std::optional<double> GenerationCell::bytes_per_token() const {
  if (!measured || measured->tokens == 0) return {};
  return measured->bytes_read / static_cast<double>(measured->tokens);
}

std::optional<double> GenerationCell::roofline_fraction() const {
  if (!measured) return {};
  return ratio(measured->roofline_seconds, measured->seconds);
}

std::optional<double> GenerationCell::joules_per_token() const {
  if (!measured || !measured->joules || measured->tokens == 0) return {};
  return *measured->joules / static_cast<double>(measured->tokens);
}

std::optional<double> GenerationCell::tokens_per_second_per_1000(const Prices& prices) const {
  const std::optional<double> speed = tokens_per_second();
  const std::optional<double> price = prices.of(what.tier);
  if (!speed || !price) return {};
  return *speed / (*price / 1000);
}

const GenerationTier& GenerationReport::tier(const std::string& name) const {
  for (const GenerationTier& tier : tiers) {
    if (tier.name == name) return tier;
  }
  throw Error(fmt::format("there is no tier \"{}\" in this report", name));
}

}  // namespace strata
