#include "tests/optimizer/sections.h"

#include <omp.h>

#include <cstring>
#include <fstream>
#include <random>

#include "optimizer/split.h"

namespace strata::test {

Sections::Sections(std::span<const float> weights)
    : hi(weights.size()),
      lo(weights.size()),
      m(weights.size()),
      v(weights.size()),
      gradient_fp32(weights.size()),
      gradient_bf16(weights.size()),
      gradient_fp16(weights.size()) {
  split(weights.data(), numel(), hi.data(), lo.data());
}

std::vector<float> Sections::weights() const {
  std::vector<float> values(hi.size());
  join(hi.data(), lo.data(), numel(), values.data());
  return values;
}

void Sections::set_gradient(std::span<const float> gradient) {
  gradient_fp32.assign(gradient.begin(), gradient.end());
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    gradient_bf16[i] = bf16(gradient[i]);
    gradient_fp16[i] = f16(gradient[i]);
  }
}

UpdateChunk Sections::chunk(std::int64_t begin, std::int64_t end, Dtype gradient_dtype) {
  UpdateChunk chunk;
  chunk.numel = end - begin;
  chunk.hi = hi.data() + begin;
  chunk.lo = lo.data() + begin;
  chunk.m = m.data() + begin;
  chunk.v = v.data() + begin;
  chunk.gradient_dtype = gradient_dtype;
  if (gradient_dtype == Dtype::kBf16) {
    chunk.gradient = gradient_bf16.data() + begin;
  } else if (gradient_dtype == Dtype::kF16) {
    chunk.gradient = gradient_fp16.data() + begin;
  } else {
    chunk.gradient = gradient_fp32.data() + begin;
  }
  return chunk;
}

bool Sections::same_state(const Sections& other) const {
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  return hi == other.hi && lo == other.lo && same(m, other.m) && same(v, other.v);
}

std::vector<float> normal(std::int64_t numel, unsigned seed, float scale) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution(0.0f, scale);
  std::vector<float> values(static_cast<std::size_t>(numel));
  for (float& value : values) value = distribution(engine);
  return values;
}

std::vector<int> thread_counts() {
  if (omp_get_max_threads() == 1) return {1};
  return {1, 2, 3, 7};
}

nlohmann::json read_fixture() {
  std::ifstream file(STRATA_SOURCE_DIR "/tests/golden/optimizer_fixture.json");
  return nlohmann::json::parse(file);
}

}  // namespace strata::test
