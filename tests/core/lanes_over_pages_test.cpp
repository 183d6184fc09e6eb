// Attention over pages of bf16, 8 and 4 bits for queries of bf16: by the instructions this
// processor has for it, and by those of every processor.
#include "core/cpu/lanes_over_pages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "core/cpu/paged_attention.h"
#include "core/device.h"
#include "core/random.h"
#include "tests/support/kv_heads.h"

namespace strata {
namespace {

using Kernels = cpu::RowProduct::Kernels;
using Numbers = std::vector<bf16>;
using Heads = test::KvHeads;

Numbers normal(std::int64_t count, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  fill_normal(random_key(seed, "values"), 0, 1.0, values);
  Numbers numbers;
  for (const float value : values) numbers.emplace_back(value);
  return numbers;
}

/// One text in pages that lie in any order and held something else before.
class Text {
 public:
  Text(const Heads& heads, std::int64_t tokens)
      : heads_(heads),
        tokens_(tokens),
        q_(normal(tokens * wide(), 1)),
        k_(normal(tokens * narrow(), 2)),
        v_(normal(tokens * narrow(), 3)) {}

  Numbers& k() { return k_; }
  Numbers& v() { return v_; }

  /// What attention gives when so many tokens come at a time.
  Numbers attend(std::int64_t chunk, Kernels kernels) {
    PagedKv kv{.memory = nullptr,
               .page_stride = 0,
               .dtype = heads_.pages,
               .kv_heads = heads_.kv_heads,
               .head_size = heads_.head_size};
    kv.page_stride = kv.page_bytes() + 64;
    Buffer memory = allocate_host(kv.page_stride * 8);
    std::memset(memory.data(), 0xff, memory.bytes());  // NaN in every dtype
    kv.memory = memory.data();
    const std::vector<std::int32_t> pages{5, 2, 7, 0};
    Numbers y(q_.size());
    for (std::int64_t done = 0; done < tokens_; done += chunk) {
      const std::int64_t rows = std::min(chunk, tokens_ - done);
      const std::vector<SequenceRows> sequences{{0, rows, done, pages}};
      const auto rows_of = [&](Numbers& values, std::int64_t width) {
        return TensorView(values.data() + done * width, Dtype::kBf16, {rows, width});
      };
      device_->ops().append_kv(kv, sequences, rows_of(k_, narrow()), rows_of(v_, narrow()),
                               *stream_);
      stream_->synchronize();
      cpu::attend_over_pages({.heads = heads_.heads,
                              .kv_heads = heads_.kv_heads,
                              .head_size = heads_.head_size,
                              .scale = 1.0f / std::sqrt(static_cast<float>(heads_.head_size)),
                              .window = heads_.window},
                             kv, sequences, rows_of(q_, wide()), rows_of(y, wide()), kernels);
    }
    return y;
  }

 private:
  std::int64_t wide() const { return heads_.heads * heads_.head_size; }
  std::int64_t narrow() const { return heads_.kv_heads * heads_.head_size; }

  Heads heads_;
  std::int64_t tokens_;
  Numbers q_, k_, v_;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

std::vector<Heads> cases() {
  std::vector<Heads> all;
  for (const Dtype pages : {Dtype::kBf16, Dtype::kQ8, Dtype::kQ4}) {
    all.insert(all.end(),
               {{.pages = pages},
                {.pages = pages, .heads = 3, .kv_heads = 3, .head_size = 20},
                {.pages = pages, .heads = 16, .kv_heads = 1, .head_size = 33},
                {.pages = pages, .heads = 6, .kv_heads = 2, .head_size = 80},
                {.pages = pages, .heads = 4, .kv_heads = 2, .head_size = 96, .window = 50},
                {.pages = pages, .heads = 2, .kv_heads = 1, .head_size = 128, .window = 1},
                {.pages = pages, .heads = 7, .kv_heads = 1, .head_size = 112, .window = 3}});
  }
  return all;
}

class LanesOverPages : public testing::TestWithParam<Heads> {
 protected:
  void SetUp() override {
    if (!cpu::LanesOverPages::can_read(GetParam().pages)) {
      GTEST_SKIP() << "no AVX-512 BF16 and VNNI here: all kernels are portable";
    }
  }
};

TEST_P(LanesOverPages, AreNearWhatEveryProcessorGives) {
  // What is asked of their difference: 4 bits lose 0.09 themselves.
  const bool q4 = GetParam().pages == Dtype::kQ4;
  const float each = q4 ? 0.05f : 0.012f;
  const double together = q4 ? 0.012 : 0.0025;
  for (const std::int64_t tokens : {1, 63, 64, 65, 200}) {
    Text text(GetParam(), tokens);
    const Numbers got = text.attend(tokens, Kernels::kFastest);
    const Numbers want = text.attend(tokens, Kernels::kPortable);
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const float a = static_cast<float>(got[i]), b = static_cast<float>(want[i]);
      ASSERT_NEAR(a, b, each + 0.008f * std::abs(b)) << i << " of " << tokens;
      difference += std::pow(static_cast<double>(a) - static_cast<double>(b), 2);
      norm += std::pow(static_cast<double>(b), 2);
    }
    // Each loses 0.0017 by rounding what it gives to bf16.
    EXPECT_LT(std::sqrt(difference / norm), together) << tokens;
  }
}

TEST_P(LanesOverPages, GiveTheSameBitsHoweverTheTokensCome) {
  for (const Kernels kernels : {Kernels::kFastest, Kernels::kPortable}) {
    Text text(GetParam(), 200);
    const Numbers want = text.attend(200, kernels);
    for (const std::int64_t chunk : {1, 2, 3, 17, 64}) {
      const Numbers got = text.attend(chunk, kernels);
      EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(bf16)), 0)
          << "chunks of " << chunk;
    }
  }
}

TEST_P(LanesOverPages, LetATokenThatIsNoNumberSpoilItselfOnly) {
  Text text(GetParam(), 100);
  const Numbers want = text.attend(1, Kernels::kFastest);
  const std::size_t narrow = text.k().size() / 100, wide = want.size() / 100;
  text.k()[narrow * 90] = bf16(std::numeric_limits<float>::quiet_NaN());
  text.v()[narrow * 91] = bf16(std::numeric_limits<float>::infinity());
  const Numbers got = text.attend(1, Kernels::kFastest);
  EXPECT_EQ(std::memcmp(got.data(), want.data(), 90 * wide * sizeof(bf16)), 0);
  EXPECT_FALSE(std::isfinite(static_cast<float>(got[90 * wide])));
  EXPECT_FALSE(std::isfinite(static_cast<float>(got[91 * wide])));
}

INSTANTIATE_TEST_SUITE_P(Shapes, LanesOverPages, testing::ValuesIn(cases()));

}  // namespace
}  // namespace strata
