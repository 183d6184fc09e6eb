#include "core/text/token_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

class MemorySource final : public TokenSource {
 public:
  explicit MemorySource(std::vector<TrainingToken> tokens) : tokens_(std::move(tokens)) {}
  std::int64_t wait_for(std::int64_t) override { return static_cast<std::int64_t>(tokens_.size()); }
  void read(std::int64_t begin, std::span<TrainingToken> tokens) override {
    expects(begin >= 0 && static_cast<std::size_t>(begin) + tokens.size() <= tokens_.size(),
            "the tokens read are there");
    std::ranges::copy(std::span(tokens_).subspan(static_cast<std::size_t>(begin), tokens.size()),
                      tokens.begin());
  }

 private:
  std::vector<TrainingToken> tokens_;
};

}  // namespace

std::unique_ptr<TokenSource> make_token_source(std::vector<TrainingToken> tokens) {
  return std::make_unique<MemorySource>(std::move(tokens));
}

std::vector<std::int32_t> ids_of(TokenSource& source) {
  const std::int64_t count = source.wait_for(std::numeric_limits<std::int64_t>::max());
  std::vector<TrainingToken> tokens(static_cast<std::size_t>(count));
  source.read(0, tokens);
  std::vector<std::int32_t> ids;
  ids.reserve(tokens.size());
  for (const TrainingToken token : tokens) ids.push_back(token.id());
  return ids;
}

}  // namespace strata
