#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/dtype.h"
#include "optimizer/update_rule.h"

namespace strata::test {

/// The sections of a shard and a gradient in every dtype, in memory of their own.
struct Sections {
  std::vector<std::uint16_t> hi;
  std::vector<std::int16_t> lo;
  std::vector<float> m;
  std::vector<float> v;
  std::vector<float> gradient_fp32;
  std::vector<bf16> gradient_bf16;
  std::vector<f16> gradient_fp16;

  explicit Sections(std::span<const float> weights);

  std::int64_t numel() const { return static_cast<std::int64_t>(hi.size()); }
  std::vector<float> weights() const;
  void set_gradient(std::span<const float> gradient);  ///< in every dtype
  /// Elements [begin, end) as a chunk.
  UpdateChunk chunk(std::int64_t begin, std::int64_t end, Dtype gradient_dtype);
  /// The same bits in hi, lo, m and v.
  bool same_state(const Sections& other) const;
};

/// Standard normal numbers times `scale`, the same for the same seed.
std::vector<float> normal(std::int64_t numel, unsigned seed, float scale = 1.0f);

/// Thread counts to compare with 1. Only 1 where OMP_NUM_THREADS is 1: ThreadSanitizer does not
/// know the barriers of OpenMP.
std::vector<int> thread_counts();

/// tests/golden/optimizer_fixture.json
nlohmann::json read_fixture();

}  // namespace strata::test
