#include "core/text/document_packer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

/// Sequences to choose from; more fill better and hold more memory.
constexpr std::size_t kMostOpen = 64;

}  // namespace

DocumentPacker::DocumentPacker(std::int64_t sequence_length, std::int32_t filler, Sink sink)
    : length_(static_cast<std::size_t>(sequence_length)), filler_(filler), sink_(std::move(sink)) {}

void DocumentPacker::add(const Document& document, bool starts) {
  expects(document.ids.size() == document.trained.size() && (starts || length_ == 0),
          "a document has a mark for every token, and is packed whole");
  std::size_t count = document.ids.size();
  longest_ = std::max(longest_, static_cast<std::int64_t>(count));
  if (length_ > 0 && count > length_) {
    count = length_;
    ++cut_;
    const auto predicted = std::span(document.trained).first(length_).subspan(1);
    if (std::ranges::find(predicted, 1) == predicted.end()) ++cut_unlearned_;
  }
  fresh_.clear();
  for (std::size_t t = 0; t < count; ++t) {
    fresh_.emplace_back(document.ids[t], starts && t == 0, document.trained[t] != 0);
  }
  if (length_ == 0) return sink_(fresh_);
  if (count == 0) return;
  std::size_t best = open_.size();
  for (std::size_t i = 0; i < open_.size(); ++i) {
    const bool fits = open_[i].size() + count <= length_;
    if (fits && (best == open_.size() || open_[i].size() > open_[best].size())) best = i;
  }
  if (best == open_.size()) {
    if (open_.size() == kMostOpen) close(fullest());
    best = open_.size();
    open_.emplace_back();
  }
  open_[best].insert(open_[best].end(), fresh_.begin(), fresh_.end());
  if (open_[best].size() == length_) close(best);
}

void DocumentPacker::finish() {
  if (length_ == 0) return;
  while (!open_.empty()) close(fullest());
  const TrainingToken label(filler_, true, false);
  sink_(std::span(&label, 1));
}

std::size_t DocumentPacker::fullest() const {
  const auto by_size = [](const Tokens& a, const Tokens& b) { return a.size() < b.size(); };
  return static_cast<std::size_t>(std::max_element(open_.begin(), open_.end(), by_size) -
                                  open_.begin());
}

void DocumentPacker::close(std::size_t index) {
  Tokens sequence = std::move(open_[index]);
  open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(index));
  sequence.resize(length_, TrainingToken(filler_, true, false));
  sink_(sequence);
}

}  // namespace strata
