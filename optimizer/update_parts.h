#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "optimizer/update_rule.h"

namespace strata {

/// @throws Error if `update` may not be called with these arguments by a rule that uses `sections`
void check_update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
                  const UpdateStep& step, int threads, StateSections sections);

/// What the options of a rule must be. @throws UsageError naming rule and option
void check_beta(const char* rule, const char* name, double beta);           // in [0, 1)
void check_not_negative(const char* rule, const char* name, double value);  // and finite

/// The threads worth starting for `numel` elements: a part below 16,384 elements costs less than a
/// start.
inline int useful_threads(std::int64_t numel, int threads) {
  return static_cast<int>(std::clamp<std::int64_t>(numel / 16384, 1, threads));
}

/// First element of part `part` of `parts`: static, on multiples of 64 elements so that threads
/// share no cache line of an aligned section.
inline std::int64_t part_begin(std::int64_t numel, int part, int parts) {
  if (part == parts) return numel;
  return numel / parts * part / 64 * 64;
}

/// Calls body(begin, end, decay) for every run of every segment, from `threads` threads. Each
/// element is in exactly one call. `body` must not throw.
template <typename Body>
void for_each_run(std::int64_t numel, std::span<const UpdateSegment> segments, int threads,
                  const Body& body) {
  const int parts = useful_threads(numel, threads);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
  for (int part = 0; part < parts; ++part) {
    const std::int64_t first = part_begin(numel, part, parts);
    const std::int64_t last = part_begin(numel, part + 1, parts);
    for (const UpdateSegment& segment : segments) {
      const std::int64_t begin = std::max(segment.begin, first);
      const std::int64_t end = std::min(segment.end, last);
      if (begin < end) body(begin, end, segment.decay);
    }
  }
}

}  // namespace strata
