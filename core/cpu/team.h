#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/stream.h"

namespace strata::cpu {

/// Runs `work` on `stream` with OpenMP teams of `threads` threads, whichever thread the stream runs
/// on.
template <typename Work>
void submit(Stream& stream, int threads, Work work) {
  stream.enqueue([threads, work = std::move(work)] {
    omp_set_num_threads(threads);
    work();
  });
}

/// Calls body(begin, count) for consecutive ranges of `block` indices covering [0, total), spread
/// over the team. Ranges depend on `total` and `block` only. @pre block > 0; body does not throw
template <typename Body>
void for_blocks(std::int64_t total, std::int64_t block, const Body& body) {
  const std::int64_t blocks = (total + block - 1) / block;
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (std::int64_t index = 0; index < blocks; ++index) {
    const std::int64_t begin = index * block;
    body(begin, std::min(block, total - begin));
  }
}

/// Elements that one thread takes at a time: large against the cost of handing out work, small
/// against a tensor.
constexpr std::int64_t kBlockNumel = 16384;

/// for_blocks over rows of `features` elements each.
template <typename Body>
void for_row_blocks(std::int64_t rows, std::int64_t features, const Body& body) {
  for_blocks(rows, std::max<std::int64_t>(1, kBlockNumel / std::max<std::int64_t>(1, features)),
             body);
}

}  // namespace strata::cpu
