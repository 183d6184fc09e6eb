#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include <utf8proc.h>

#include "core/error.h"
#include "core/text/regex.h"
#include "core/text/text_steps.h"
#include "core/text/utf8.h"

namespace strata {
namespace {

using nlohmann::json;

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  std::string apply(std::string text, TextStart start) const override {
    for (const auto& step : steps_) text = step->apply(std::move(text), start);
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

/// Canonical composition. An ASCII character composes with what follows it, never with what is
/// before it, so that texts between ASCII characters are composed apart.
class Nfc final : public Normalizer {
 public:
  std::string apply(std::string text, TextStart /*start*/) const override {
    std::string_view rest = text;
    std::size_t ascii = ascii_prefix(rest);
    if (ascii == rest.size()) return text;
    std::string result;
    while (!rest.empty()) {
      const std::size_t begin = ascii > 0 && ascii < rest.size() ? ascii - 1 : ascii;
      result.append(rest, 0, begin);
      rest.remove_prefix(begin);
      std::size_t end = std::min<std::size_t>(1, rest.size());
      while (end < rest.size() && static_cast<unsigned char>(rest[end]) >= 0x80) ++end;
      append_composed(rest.substr(0, end), result);
      rest.remove_prefix(end);
      ascii = ascii_prefix(rest);
    }
    return result;
  }

 private:
  static void append_composed(std::string_view text, std::string& result) {
    if (text.empty()) return;
    utf8proc_uint8_t* composed = nullptr;
    const utf8proc_ssize_t bytes =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &composed,
                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (bytes < 0) throw Error(fmt::format("NFC failed: {}", utf8proc_errmsg(bytes)));
    result.append(reinterpret_cast<const char*>(composed), static_cast<std::size_t>(bytes));
    std::free(composed);
  }
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text, TextStart start) const override {
    return text.empty() || start == TextStart::kWithin ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string apply(std::string text, TextStart /*start*/) const override {
    return pattern_.replace(text, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

std::unique_ptr<Normalizer> make_one(const json& part, const std::string& path) {
  const std::string type = part.value("type", "");
  if (type == "NFC") return std::make_unique<Nfc>();
  if (type == "Prepend") return std::make_unique<Prepend>(part.at("prepend").get<std::string>());
  if (type == "Replace") {
    return std::make_unique<Replace>(make_pattern(part.at("pattern"), path),
                                     part.at("content").get<std::string>());
  }
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const json& step : part.at("normalizers")) steps.push_back(make_one(step, path));
    return std::make_unique<Sequence>(std::move(steps));
  }
  refuse_component(part, "normalizer", "NFC, Prepend, Replace, Sequence", path);
}

}  // namespace

void refuse_component(const json& part, const char* kind, const char* supported,
                      const std::string& path) {
  const json type = part.is_object() ? part.value("type", json()) : json();
  throw FormatError(fmt::format("{}: the {} {:.100} is not supported; supported are {}", path, kind,
                                type.dump(-1, ' ', true, json::error_handler_t::replace),
                                supported));
}

Regex make_pattern(const json& part, const std::string& path) {
  if (part.contains("Regex")) return Regex(part.at("Regex").get<std::string>(), path);
  return Regex::literal(part.at("String").get<std::string>(), path);
}

std::unique_ptr<Normalizer> make_normalizer(const json& part, const std::string& path) {
  return part.is_null() ? nullptr : make_one(part, path);
}

}  // namespace strata
