#include "launch/plot/scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace strata::plot {
namespace {

/// Below this share of the largest value doubles have too few digits left to draw a curve with.
constexpr double kNarrowest = 1e-11;

double decade(double value) { return std::floor(std::log10(value) + 1e-9); }

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
double round_step(double step) {
  const double power = std::pow(10.0, decade(step));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/// "5.20e-05" as "5.2e-5".
std::string short_scientific(double value, int digits) {
  const std::string text = fmt::format("{:.{}e}", value, digits - 1);
  const std::size_t e = text.find('e');
  std::string mantissa = text.substr(0, e);
  if (mantissa.find('.') != std::string::npos) {
    mantissa.erase(mantissa.find_last_not_of('0') + 1);
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  return fmt::format("{}e{}", mantissa, std::stoi(text.substr(e + 1)));
}

}  // namespace

std::string axis_label(double value, double step) {
  static constexpr std::array<const char*, 5> kUnits = {"", "K", "M", "B", "T"};
  const double size = std::abs(value);
  if (size < 1e-9 * step) return "0";
  const int digits = std::clamp(static_cast<int>(decade(size) - decade(step)) + 1, 1, 15);
  const bool small = size < 1e-3 || (step < 1e-3 && size < 0.05);  // all marks of an axis alike
  if (small || size >= 1e15) return short_scientific(value, digits);
  std::size_t unit = 0;
  double scaled = value;
  while (size >= 1e4 && std::abs(scaled) >= 1e3 && unit + 1 < kUnits.size()) {
    scaled /= 1e3;
    ++unit;
  }
  return fmt::format("{:.{}g}{}", scaled, std::max(digits, 4), kUnits[unit]);
}

Scale::Scale(Kind kind, Range range, double from, double to)
    : kind_(kind), range_(range), from_(from), to_(to) {
  if (kind == Kind::kLogarithmic) {
    if (range_.high / range_.low < 1 + kNarrowest) {
      range_.low /= 2;
      range_.high *= 2;
    }
    return;
  }
  const double largest = std::max(std::abs(range_.low), std::abs(range_.high));
  if (range_.high - range_.low < kNarrowest * largest || largest == 0) {
    const double side = largest == 0 ? 1 : largest / 10;
    range_.low -= side;
    range_.high += side;
  }
}

double Scale::operator()(double value) const {
  if (kind_ == Kind::kLinear) {
    return from_ + (value - range_.low) / (range_.high - range_.low) * (to_ - from_);
  }
  if (!(value > 0)) return std::numeric_limits<double>::quiet_NaN();
  const double share = std::log(value / range_.low) / std::log(range_.high / range_.low);
  return from_ + share * (to_ - from_);
}

std::vector<double> Scale::ticks(int wanted, bool whole) const {
  return kind_ == Kind::kLinear ? linear_ticks(wanted, whole) : logarithmic_ticks(wanted);
}

std::vector<double> Scale::linear_ticks(int wanted, bool whole) const {
  double step = round_step((range_.high - range_.low) / wanted);
  if (whole) step = std::max(step, 1.0);
  const double slack = 1e-9 * step;
  const double first = std::ceil((range_.low - slack) / step);
  std::vector<double> all;
  for (double i = first; i * step <= range_.high + slack; ++i) all.push_back(i * step);
  return all;
}

std::vector<double> Scale::logarithmic_ticks(int wanted) const {
  const double low = std::log10(range_.low);
  const double high = std::log10(range_.high);
  const bool fine = high - low < wanted / 2.0;
  const double stride = std::max(1.0, std::ceil((high - low) / wanted));
  std::vector<double> all;
  for (double power = std::floor(low); power <= high; power += stride) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double value = factor * std::pow(10.0, power);
      const bool inside = value >= range_.low * (1 - 1e-9) && value <= range_.high * (1 + 1e-9);
      if (inside && (fine || factor == 1)) all.push_back(value);
    }
  }
  return all;
}

}  // namespace strata::plot
