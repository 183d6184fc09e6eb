#include "launch/config_node.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace strata {

using nlohmann::json;

ConfigNode ConfigNode::operator[](const std::string& key) const {
  ConfigNode child(*this);
  child.path_ = path_.empty() ? key : path_ + "." + key;
  const bool has = *this && value_->is_object() && value_->contains(key);
  child.value_ = has ? &value_->at(key) : nullptr;
  return child;
}

std::string ConfigNode::shown() const {
  return fmt::format("{:.80}", value_->dump(-1, ' ', false, json::error_handler_t::replace));
}

bool ConfigNode::boolean() const {
  if (!value_->is_boolean()) refuse_value("true or false");
  return value_->get<bool>();
}

std::int64_t ConfigNode::whole(std::int64_t low, std::int64_t high) const {
  const double number = real(-kAnyReal, kAnyReal);
  if (number != std::floor(number) || number < static_cast<double>(low) ||
      number > static_cast<double>(high)) {
    refuse_value(high == kMost ? fmt::format("a whole number of at least {}", low)
                               : fmt::format("a whole number from {} to {}", low, high));
  }
  return static_cast<std::int64_t>(number);
}

double ConfigNode::real(double low, double high) const {
  if (!value_->is_number()) refuse_value("a number");
  const auto number = value_->get<double>();
  if (!(number >= low && number <= high)) {
    refuse_value(high == kAnyReal ? fmt::format("a number of at least {}", low)
                                  : fmt::format("a number from {} to {}", low, high));
  }
  return number;
}

std::string ConfigNode::text() const {
  if (!value_->is_string()) refuse_value("a string");
  return value_->get<std::string>();
}

void ConfigNode::expect_object() const {
  if (*this && !value_->is_object()) refuse_value("an object {...}");
}

void ConfigNode::refuse(const std::string& why) const {
  throw UsageError(fmt::format("{}: {}: {}", *file_, path_, why));
}

void ConfigNode::refuse_value(const std::string& wanted) const {
  refuse(fmt::format("{} is not {}", shown(), wanted));
}

}  // namespace strata
