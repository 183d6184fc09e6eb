#include "core/text/json_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"

namespace strata {
namespace {

using nlohmann::json;
using Kind = JsonField::Kind;

constexpr std::size_t kMaxDepth = 64;

/// Where values of one key are kept.
template <typename Owner>
struct Place {
  std::string_view key;
  JsonField Owner::*field;
};
constexpr std::array<Place<JsonRow>, 8> kRowPlaces = {{{"text", &JsonRow::text},
                                                       {"prompt", &JsonRow::prompt},
                                                       {"completion", &JsonRow::completion},
                                                       {"instruction", &JsonRow::instruction},
                                                       {"input", &JsonRow::input},
                                                       {"output", &JsonRow::output},
                                                       {"messages", &JsonRow::messages},
                                                       {"conversations", &JsonRow::conversations}}};
constexpr std::array<Place<JsonField::Turn>, 4> kTurnPlaces = {
    {{"role", &JsonField::Turn::role},
     {"content", &JsonField::Turn::content},
     {"from", &JsonField::Turn::from},
     {"value", &JsonField::Turn::value}}};

template <typename Owner, std::size_t kPlaces>
JsonField* place_of(const std::array<Place<Owner>, kPlaces>& places, std::string_view key,
                    Owner& owner) {
  const auto found = std::ranges::find(places, key, &Place<Owner>::key);
  return found == places.end() ? nullptr : &(owner.*(found->field));
}

/// Receives the events of the parser, which has no stack of its own.
class RowSax final : public nlohmann::json_sax<json> {
 public:
  RowSax(JsonRow& row, const std::string& where) : row_(row), where_(where) {}

  bool null() override { return value(Kind::kNull); }
  bool boolean(bool) override { return value(Kind::kBoolean); }
  bool number_integer(number_integer_t) override { return value(Kind::kNumber); }
  bool number_unsigned(number_unsigned_t) override { return value(Kind::kNumber); }
  bool number_float(number_float_t, const string_t&) override { return value(Kind::kNumber); }
  bool binary(binary_t&) override { return value(Kind::kObject); }  // not in JSON
  bool string(string_t& text) override {
    if (wanted_ != nullptr) wanted_->text = std::move(text);
    return value(Kind::kText);
  }

  bool start_object(std::size_t) override {
    const bool is_turn = turns_ != nullptr && keys_.size() == 2;
    if (!keys_.empty()) value(Kind::kObject);
    enter();
    if (is_turn) turn_ = &turns_->back();
    return true;
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      throw FormatError(fmt::format("{}: the key \"{:.100}\" occurs twice", where_, name));
    }
    if (keys_.size() == 1) wanted_ = place_of(kRowPlaces, name, row_);
    if (keys_.size() == 3 && turn_ != nullptr) wanted_ = place_of(kTurnPlaces, name, *turn_);
    return true;
  }
  bool end_object() override {
    leave();
    if (keys_.size() == 2) turn_ = nullptr;
    return true;
  }

  bool start_array(std::size_t) override {
    JsonField* const list = wanted_;
    value(Kind::kList);
    enter();
    if (list == &row_.messages || list == &row_.conversations) turns_ = &list->turns;
    return true;
  }
  bool end_array() override {
    leave();
    if (keys_.size() == 1) turns_ = nullptr;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& cause) override {
    std::string fault = describe_json_fault(cause);
    constexpr std::string_view kLine = "line 1, ";  // of the row, which `where` names
    if (fault.starts_with(kLine)) fault.erase(0, kLine.size());
    throw FormatError(fmt::format("{}: not valid JSON: {}", where_, fault));
  }

 private:
  bool value(Kind kind) {
    if (keys_.empty()) throw FormatError(where_ + ": not a JSON object");
    if (turns_ != nullptr && keys_.size() == 2) turns_->emplace_back().kind = kind;
    if (wanted_ != nullptr) wanted_->kind = kind;
    wanted_ = nullptr;
    return true;
  }
  void enter() {
    if (keys_.size() == kMaxDepth) {
      throw FormatError(fmt::format("{}: nested deeper than {} levels", where_, kMaxDepth));
    }
    keys_.emplace_back();
  }
  void leave() { keys_.pop_back(); }

  JsonRow& row_;
  const std::string& where_;
  std::vector<std::set<std::string, std::less<>>> keys_;  // of the objects and lists that are open
  JsonField* wanted_ = nullptr;                           // what the next value is for
  std::vector<JsonField::Turn>* turns_ = nullptr;         // inside "messages"
  JsonField::Turn* turn_ = nullptr;                       // inside one of its objects
};

}  // namespace

std::string_view describe(Kind kind) noexcept {
  switch (kind) {
    case Kind::kMissing:
      return "missing";
    case Kind::kNull:
      return "null";
    case Kind::kText:
      return "a string";
    case Kind::kNumber:
      return "a number";
    case Kind::kBoolean:
      return "true or false";
    case Kind::kList:
      return "a list";
    case Kind::kObject:
      return "an object";
  }
  return "";
}

JsonRow parse_json_row(std::string_view line, const std::string& where) {
  if (line.find('\0') != std::string_view::npos) {  // where nlohmann would stop reading
    throw FormatError(where + ": not valid JSON: it contains a zero byte");
  }
  JsonRow row;
  RowSax sax(row, where);
  json::sax_parse(line, &sax);
  return row;
}

}  // namespace strata
