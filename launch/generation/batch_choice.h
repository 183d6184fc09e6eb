#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace strata {

enum class Objective : std::uint8_t {
  kThroughput,  ///< tokens per second of all texts
  kLatency      ///< the time between two tokens of a text
};

struct BatchOptions {
  std::optional<std::int64_t> most = {};  ///< texts in flight on a rank; none: as many as help
  Objective objective = Objective::kThroughput;
};

/// Texts in flight at most where nothing else is said and passes hide no more.
inline constexpr std::int64_t kUsualBatch = 256;

/// How many of `texts` texts to have in flight on a rank. For throughput as many as are allowed:
/// what a pass costs is shared by them; if nothing is said, more than kUsualBatch only where they
/// cost a pass no time. For latency no more than cost it no time.
/// @param hidden hidden_rows() of a plan for so many texts in flight: fewer texts leave memory to
/// weights, of which less streams then
std::int64_t choose_batch(const BatchOptions& options, std::int64_t texts,
                          const std::function<std::int64_t(std::int64_t)>& hidden);

}  // namespace strata
