#include "launch/generation/stop_text.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

/// How much of the end of `text` is the beginning of `stop`.
std::size_t begun(std::string_view text, std::string_view stop) {
  std::size_t length = std::min(text.size(), stop.size() - 1);
  while (!text.ends_with(stop.substr(0, length))) --length;
  return length;
}

}  // namespace

StopText::StopText(const Tokenizer& tokenizer, std::vector<std::string> stops)
    : decoder_(tokenizer), stops_(std::move(stops)) {
  expects(std::ranges::none_of(stops_, &std::string::empty), "a stop string has a character");
}

std::string StopText::take(std::string_view more) {
  held_ += more;
  std::size_t end = std::string::npos, keep = 0;
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    keep = std::max(keep, begun(held_, stop));
  }
  stopped_ = end != std::string::npos;
  std::string shown = held_.substr(0, stopped_ ? end : held_.size() - keep);
  held_.erase(0, stopped_ ? held_.size() : shown.size());
  return shown;
}

std::string StopText::add(std::int32_t id) { return stopped_ ? "" : take(decoder_.add(id)); }

std::string StopText::finish() {
  if (stopped_) return "";
  std::string shown = take(decoder_.finish());  // may complete a stop string
  if (!stopped_) shown += std::exchange(held_, {});
  return shown;
}

}  // namespace strata
