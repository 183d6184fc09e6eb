#include "core/units.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::string_view kPrefixes = "kmgtp";

/// "1.50", "15.0", "150" for 1 <= value < 1024.
std::string three_digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

std::string scaled(double value, double base, const std::array<const char*, 6>& units) {
  std::size_t unit = 0;
  while (std::abs(value) >= base && unit + 1 < units.size()) {
    value /= base;
    ++unit;
  }
  const bool whole = value == std::floor(value) && std::abs(value) < base;
  return (whole ? fmt::format("{:.0f}", value) : three_digits(value)) + units[unit];
}

/// The factor of a unit in lower case, or 0 when there is no such unit.
double unit_factor(const std::string& unit) {
  if (unit.empty() || unit == "b") return 1;
  const std::size_t power = kPrefixes.find(unit[0]);
  if (power == std::string_view::npos) return 0;
  const std::string rest = unit.substr(1);
  const double exponent = static_cast<double>(power + 1);
  if (rest == "b") return std::pow(1000.0, exponent);
  if (rest.empty() || rest == "ib") return std::pow(1024.0, exponent);
  return 0;
}

[[noreturn]] void refuse(std::string_view flag, std::string_view text) {
  throw UsageError(
      fmt::format("{}: \"{}\" is not a size; write a number with a unit such as 1.5GiB, "
                  "512MB or 64k",
                  flag, text));
}

}  // namespace

std::uint64_t parse_bytes(std::string_view flag, std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0) refuse(flag, text);
  std::string unit;
  for (const char* c = rest; c != end; ++c) {
    if (*c == ' ' && unit.empty()) continue;
    unit.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(*c))));
  }
  const double factor = unit_factor(unit);
  if (factor == 0) refuse(flag, text);
  const double bytes = std::floor(value * factor);
  if (bytes > 9.2e18) refuse(flag, text);
  return static_cast<std::uint64_t>(bytes);
}

std::string format_bytes(std::uint64_t bytes) {
  return scaled(static_cast<double>(bytes), 1024, {" B", " KiB", " MiB", " GiB", " TiB", " PiB"});
}

std::string format_traffic(double bytes) {
  return scaled(bytes, 1000, {" B", " KB", " MB", " GB", " TB", " PB"});
}

std::string format_count(double count) {
  return scaled(count, 1000, {"", "K", "M", "B", "T", "P"});
}

std::string format_seconds(double seconds) {
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace strata
