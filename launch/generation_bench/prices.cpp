#include "launch/generation_bench/prices.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"

namespace strata {
namespace {

double read_price(const nlohmann::json& value, const std::string& path, const std::string& key) {
  const bool is_price = value.is_number() && value.get<double>() >= 0;
  if (is_price) return value.get<double>();
  throw FormatError(fmt::format("{}: {} is to be a number that is not negative, not {}", path, key,
                                value.dump(-1, ' ', true)));
}

}  // namespace

std::optional<double> Prices::of(const std::string& tier) const {
  const auto found = tiers.find(tier);
  if (found == tiers.end() || system + found->second <= 0) return {};
  return system + found->second;
}

Prices read_prices(const std::filesystem::path& file) {
  const std::string path = file.string();
  const nlohmann::json json = parse_json_object(read_text_file(file, 1 << 20), path, 8);
  Prices prices;
  for (const auto& [key, value] : json.items()) {
    if (key == "currency") {
      if (!value.is_string()) throw FormatError(path + ": currency is to be a name, as \"EUR\"");
      prices.currency = value.get<std::string>();
    } else if (key == "system") {
      prices.system = read_price(value, path, key);
    } else if (key == "tiers") {
      if (!value.is_object()) {
        throw FormatError(path + ": tiers is to be an object, as {\"gen5\": 320}");
      }
      for (const auto& [tier, price] : value.items()) {
        prices.tiers[tier] = read_price(price, path, "tiers." + tier);
      }
    } else {
      throw FormatError(
          fmt::format("{}: there is no key \"{}\"; keys are currency, system, tiers", path, key));
    }
  }
  for (const char* key : {"currency", "system", "tiers"}) {
    if (!json.contains(key)) throw FormatError(fmt::format("{}: {} is missing", path, key));
  }
  return prices;
}

}  // namespace strata
