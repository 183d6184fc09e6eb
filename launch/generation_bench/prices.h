#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace strata {

/// What the measured machine costs. A JSON file with numbers of the reader's choice:
///
///     {"currency": "EUR", "system": 4200, "tiers": {"dram": 900, "gen5": 320, "gen4": 180}}
///
/// `system` is what every tier needs; `tiers` is what each adds: the drives, or the memory that
/// holds the weights. A tier without a price has no figure that is made of prices.
struct Prices {
  std::string currency;
  double system = 0;
  std::map<std::string, double> tiers;

  /// Of everything a tier needs; none where its price is not known.
  std::optional<double> of(const std::string& tier) const;
};

/// @throws FormatError naming file, key and value; IoError if unreadable
Prices read_prices(const std::filesystem::path& file);

}  // namespace strata
