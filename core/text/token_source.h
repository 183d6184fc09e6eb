#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/text/training_token.h"

namespace strata {

/// A row of tokens that may still be growing at its end. One thread at a time.
class TokenSource {
 public:
  virtual ~TokenSource() = default;

  /// Blocks until the first `count` tokens are there, or all are and they are fewer. How many there
  /// are. @throws what kept the rest from being made
  virtual std::int64_t wait_for(std::int64_t count) = 0;

  /// Tokens `begin` and following. @pre wait_for() has returned as many
  virtual void read(std::int64_t begin, std::span<TrainingToken> tokens) = 0;
};

/// Tokens in memory; the first starts a document.
std::unique_ptr<TokenSource> make_token_source(std::vector<TrainingToken> tokens);

/// The ids of all of them. Blocks until they are there.
std::vector<std::int32_t> ids_of(TokenSource& source);

}  // namespace strata
