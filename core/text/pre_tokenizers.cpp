#include <algorithm>
#include <functional>
#include <utility>

#include "core/error.h"
#include "core/text/ascii_words.h"
#include "core/text/regex.h"
#include "core/text/text_steps.h"

namespace strata {
namespace {

using nlohmann::json;

enum class Behavior : std::uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous
};

/// A stretch of a word: what the pattern matched, or what lies between matches.
struct Stretch {
  TextSpan span;
  bool matched = false;
};

/// Cuts words where a pattern matches.
class Split final : public PreTokenizer {
 public:
  Split(Regex pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Words& words) const override {
    std::vector<std::string_view> result;
    result.reserve(words.words.size());
    std::vector<Stretch> stretches;
    for (const std::string_view word : words.words) {
      if (behavior_ == Behavior::kIsolated) {
        isolate(word, result);
        continue;
      }
      stretches.clear();
      cut(word, stretches);
      join(stretches);
      for (const Stretch& stretch : stretches) {
        if (behavior_ == Behavior::kRemoved && stretch.matched) continue;
        result.push_back(word.substr(stretch.span.begin, stretch.span.end - stretch.span.begin));
      }
    }
    words.words = std::move(result);
  }

 private:
  void isolate(std::string_view word, std::vector<std::string_view>& result) const {
    std::size_t done = 0;
    pattern_.for_each_match(word, [&](TextSpan match) {
      if (match.begin > done) result.push_back(word.substr(done, match.begin - done));
      result.push_back(word.substr(match.begin, match.end - match.begin));
      done = match.end;
    });
    if (done < word.size()) result.push_back(word.substr(done));
  }

  void cut(std::string_view word, std::vector<Stretch>& stretches) const {
    std::size_t done = 0;
    pattern_.for_each_match(word, [&](TextSpan match) {
      if (match.begin > done) stretches.push_back({{done, match.begin}, invert_});
      stretches.push_back({match, !invert_});
      done = match.end;
    });
    if (done < word.size()) stretches.push_back({{done, word.size()}, invert_});
  }

  void join(std::vector<Stretch>& stretches) const {
    const auto fold = [&](const std::function<bool(const Stretch&, const Stretch&)>& joins) {
      std::vector<Stretch> joined;
      bool before = false;  // whether the stretch before the current one matched
      for (const Stretch& stretch : stretches) {
        if (!joined.empty() && joins(Stretch{joined.back().span, before}, stretch)) {
          joined.back().span = {std::min(joined.back().span.begin, stretch.span.begin),
                                std::max(joined.back().span.end, stretch.span.end)};
        } else {
          joined.push_back(stretch);
        }
        before = stretch.matched;
      }
      stretches = std::move(joined);
    };
    const auto lone_match = [](const Stretch& before, const Stretch& now) {
      return now.matched && !before.matched;
    };
    switch (behavior_) {
      case Behavior::kRemoved:
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:
        fold(lone_match);
        break;
      case Behavior::kMergedWithNext:
        std::ranges::reverse(stretches);
        fold(lone_match);
        std::ranges::reverse(stretches);
        break;
      case Behavior::kContiguous:
        fold([](const Stretch& a, const Stretch& b) { return a.matched == b.matched; });
        break;
    }
  }

  Regex pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Puts a space before each word that has none.
class PrefixSpace final : public PreTokenizer {
 public:
  void apply(Words& words) const override {
    bool within = words.start == TextStart::kWithin;
    for (std::string_view& word : words.words) {
      if (std::exchange(within, false) || word.starts_with(' ')) continue;
      std::string& made = words.made.emplace_back(1, ' ');
      made += word;
      word = made;
    }
  }
};

/// Spaces become `replacement`, which can begin a word.
class Metaspace final : public PreTokenizer {
 public:
  enum class Prepend : std::uint8_t { kAlways, kFirst, kNever };
  Metaspace(const std::string& replacement, Prepend prepend, bool split, const std::string& path)
      : replacement_(replacement), prepend_(prepend) {
    if (split) {
      split_ = std::make_unique<Split>(Regex::literal(replacement, path), Behavior::kMergedWithNext,
                                       false);
    }
  }

  void apply(Words& words) const override {
    TextStart start = words.start;
    for (std::string_view& word : words.words) {
      std::string& made = words.made.emplace_back();
      const bool prepends = (prepend_ == Prepend::kAlways && start != TextStart::kWithin) ||
                            (prepend_ == Prepend::kFirst && start == TextStart::kBeginning);
      if (prepends && !word.starts_with(replacement_) && !word.starts_with(' ')) {
        made = replacement_;
      }
      for (const char c : word) {
        if (c == ' ') {
          made += replacement_;
        } else {
          made += c;
        }
      }
      word = made;
      start = TextStart::kAfterToken;
    }
    if (split_) split_->apply(words);
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  std::unique_ptr<Split> split_;
};

Behavior behavior_of(const json& part, const std::string& path) {
  const std::string name = part.at("behavior").get<std::string>();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  refuse_component(json{{"type", name}}, "behavior of a Split",
                   "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous", path);
}

Metaspace::Prepend prepend_of(const json& part, const std::string& path) {
  const std::string name =
      part.value("prepend_scheme", part.value("add_prefix_space", true) ? "always" : "never");
  if (name == "always") return Metaspace::Prepend::kAlways;
  if (name == "first") return Metaspace::Prepend::kFirst;
  if (name == "never") return Metaspace::Prepend::kNever;
  refuse_component(json{{"type", name}}, "prepend_scheme of a Metaspace", "always, first, never",
                   path);
}

void add(const json& part, const std::string& path, PreTokenizers& result) {
  if (result.byte_level) {
    refuse_component(part, "pre_tokenizer after a ByteLevel", "none: ByteLevel is the last", path);
  }
  auto& steps = result.steps;
  const std::string type = part.value("type", "");
  if (type == "Sequence") {
    for (const json& step : part.at("pretokenizers")) add(step, path, result);
  } else if (type == "Split") {
    steps.push_back(std::make_unique<Split>(make_pattern(part.at("pattern"), path),
                                            behavior_of(part, path), part.value("invert", false)));
  } else if (type == "ByteLevel") {
    if (part.value("add_prefix_space", true)) steps.push_back(std::make_unique<PrefixSpace>());
    if (part.value("use_regex", true)) {
      steps.push_back(
          std::make_unique<Split>(Regex(kGpt2Pattern, path), Behavior::kIsolated, false));
    }
    result.byte_level = true;
  } else if (type == "Digits") {
    const bool individual = part.value("individual_digits", false);
    steps.push_back(std::make_unique<Split>(Regex(individual ? "\\p{N}" : "\\p{N}+", path),
                                            Behavior::kIsolated, false));
  } else if (type == "Metaspace") {
    steps.push_back(std::make_unique<Metaspace>(part.at("replacement").get<std::string>(),
                                                prepend_of(part, path), part.value("split", true),
                                                path));
  } else {
    refuse_component(part, "pre_tokenizer", "Sequence, Split, ByteLevel, Digits, Metaspace", path);
  }
}

}  // namespace

PreTokenizers make_pre_tokenizers(const json& part, const std::string& path) {
  PreTokenizers result;
  if (!part.is_null()) add(part, path, result);
  return result;
}

}  // namespace strata
