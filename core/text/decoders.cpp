#include <fmt/format.h>

#include "core/text/text_steps.h"
#include "core/text/utf8.h"

namespace strata {
namespace {

using nlohmann::json;

class ReplaceAll final : public TokenDecoder {
 public:
  ReplaceAll(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) token = pattern_.replace(token, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

/// Runs of <0xXX> become the bytes they name; bytes that are not UTF-8 become U+FFFD each.
class ByteFallback final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> result;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      const std::string valid = valid_utf8(bytes);
      if (valid == bytes) {
        result.push_back(bytes);
      } else {
        std::string& unknown = result.emplace_back();
        for (std::size_t i = 0; i < bytes.size(); ++i) append_utf8(unknown, kReplacement);
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_of_fallback_token(token);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
      } else {
        flush();
        result.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(result);
  }
};

class Fuse final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.assign(1, std::move(all));
  }
};

/// Takes up to so many of one character from both ends of each token.
class Strip final : public TokenDecoder {
 public:
  Strip(std::string content, std::size_t start, std::size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      for (std::size_t i = 0; i < start_ && token.starts_with(content_); ++i) {
        token.erase(0, content_.size());
      }
      for (std::size_t i = 0; i < stop_ && token.ends_with(content_); ++i) {
        token.resize(token.size() - content_.size());
      }
    }
  }

 private:
  std::string content_;
  std::size_t start_, stop_;
};

/// Drops the space that Metaspace put before a text.
class DropFirstSpace final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    if (!tokens.empty() && tokens.front().starts_with(' ')) tokens.front().erase(0, 1);
  }
};

void add(const json& part, const std::string& path,
         std::vector<std::unique_ptr<TokenDecoder>>& result) {
  const std::string type = part.value("type", "");
  if (type == "Sequence") {
    for (const json& step : part.at("decoders")) add(step, path, result);
  } else if (type == "ByteLevel") {
    return;
  } else if (type == "Replace") {
    result.push_back(std::make_unique<ReplaceAll>(make_pattern(part.at("pattern"), path),
                                                  part.at("content").get<std::string>()));
  } else if (type == "ByteFallback") {
    result.push_back(std::make_unique<ByteFallback>());
  } else if (type == "Fuse") {
    result.push_back(std::make_unique<Fuse>());
  } else if (type == "Strip") {
    result.push_back(std::make_unique<Strip>(part.at("content").get<std::string>(),
                                             part.value("start", std::size_t{0}),
                                             part.value("stop", std::size_t{0})));
  } else if (type == "Metaspace") {
    const std::string scheme =
        part.value("prepend_scheme", part.value("add_prefix_space", true) ? "always" : "never");
    result.push_back(std::make_unique<ReplaceAll>(
        Regex::literal(part.at("replacement").get<std::string>(), path), " "));
    if (scheme != "never") result.push_back(std::make_unique<DropFirstSpace>());
  } else {
    refuse_component(part, "decoder",
                     "Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace", path);
  }
}

}  // namespace

int byte_of_fallback_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::vector<std::unique_ptr<TokenDecoder>> make_decoders(const json& part,
                                                         const std::string& path) {
  std::vector<std::unique_ptr<TokenDecoder>> result;
  if (!part.is_null()) add(part, path, result);
  return result;
}

}  // namespace strata
