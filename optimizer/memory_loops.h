#pragma once

#include <cstdint>

namespace strata {

/// The loops that show what a machine's memory can do, on `threads` OpenMP threads. Arrays are of
/// `numel` floats, aligned to 64 bytes, and do not overlap.

/// a[i] = b[i] + factor * c[i], with stores that bypass the caches: 12 bytes per element.
void triad_loop(float* a, const float* b, const float* c, float factor, std::int64_t numel,
                int threads);

/// a[i] *= factor: 8 bytes per element.
void scale_loop(float* a, float factor, std::int64_t numel, int threads);

/// The sum of a, in whatever order: 4 bytes per element.
float sum_loop(const float* a, std::int64_t numel, int threads);

}  // namespace strata
