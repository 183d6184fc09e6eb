#include "optimizer/memory_loops.h"

#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <span>

#include "tests/optimizer/sections.h"

namespace strata {
namespace {

/// Floats at a multiple of 64 bytes.
class AlignedFloats {
 public:
  AlignedFloats(std::int64_t numel, float value)
      : data_(static_cast<float*>(
            ::operator new(static_cast<std::size_t>(numel) * sizeof(float), kAlignment))),
        numel_(numel) {
    for (float& element : all()) element = value;
  }
  ~AlignedFloats() { ::operator delete(data_, kAlignment); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;

  float* data() const { return data_; }
  std::span<float> all() const { return {data_, static_cast<std::size_t>(numel_)}; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  float* data_;
  std::int64_t numel_;
};

TEST(MemoryLoops, TouchEveryElementOnceWhateverTheLengthAndThreads) {
  for (const int threads : test::thread_counts()) {
    for (const std::int64_t numel : {1L, 3L, 15L, 16L, 31L, 70L, 1003L, 65536L}) {
      const AlignedFloats a(numel, -1.0f), b(numel, 3.0f), c(numel, 4.0f);
      triad_loop(a.data(), b.data(), c.data(), 0.5f, numel, threads);
      for (const float value : a.all()) ASSERT_EQ(value, 5.0f);
      scale_loop(b.data(), 2.0f, numel, threads);
      for (const float value : b.all()) ASSERT_EQ(value, 6.0f);
      EXPECT_EQ(sum_loop(c.data(), numel, threads), 4.0f * static_cast<float>(numel));
    }
  }
}

}  // namespace
}  // namespace strata
