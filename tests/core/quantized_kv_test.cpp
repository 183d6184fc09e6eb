// Keys and values of 8 and 4 bits: what pages hold, and attention over them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "core/cpu/kv_lines.h"
#include "core/device.h"
#include "core/group_quantization.h"
#include "core/ops.h"
#include "core/random.h"
#include "tests/support/kv_heads.h"

namespace strata {
namespace {

using Values = std::vector<float>;
using Heads = test::KvHeads;

Values normal(std::int64_t count, std::uint64_t seed) {
  Values values(static_cast<std::size_t>(count));
  fill_normal(random_key(seed, "values"), 0, 1.0, values);
  return values;
}

/// `tokens` keys or values of `width` elements, group by group of a head as quantised weights are.
Values as_kept(const Values& values, const Heads& heads) {
  Values kept;
  for (std::size_t begin = 0; begin < values.size();) {
    const auto place = static_cast<std::int64_t>(begin) % heads.head_size;
    const auto count = static_cast<std::size_t>(std::min(kGroupNumel, heads.head_size - place));
    Values group(values.begin() + static_cast<std::ptrdiff_t>(begin),
                 values.begin() + static_cast<std::ptrdiff_t>(begin + count));
    group.resize(kGroupNumel);
    std::vector<std::byte> bytes(group_bytes(heads.pages));
    quantize(group, heads.pages, bytes.data());
    dequantize(bytes.data(), heads.pages, group);
    kept.insert(kept.end(), group.begin(), group.begin() + static_cast<std::ptrdiff_t>(count));
    begin += count;
  }
  return kept;
}

/// One sequence of `tokens` tokens in pages that lie in any order.
class TextInPages {
 public:
  TextInPages(const Heads& heads, std::int64_t tokens, std::vector<std::int32_t> pages)
      : heads_(heads),
        tokens_(tokens),
        pages_(std::move(pages)),
        q_(normal(tokens * wide(), 1)),
        k_(normal(tokens * narrow(), 2)),
        v_(normal(tokens * narrow(), 3)) {
    kv_ = {.memory = nullptr,
           .page_stride = 0,
           .dtype = heads.pages,
           .kv_heads = heads.kv_heads,
           .head_size = heads.head_size};
    kv_.page_stride = kv_.page_bytes() + 64;
    memory_ = allocate_host(kv_.page_stride * 8);
    std::memset(memory_.data(), 0xff, memory_.bytes());  // scales that are no numbers
    kv_.memory = memory_.data();
  }

  /// What attention over pages gives when so many tokens come at a time.
  Values over_pages(std::int64_t chunk) {
    Values y;
    for (std::int64_t done = 0; done < tokens_; done += chunk) {
      const std::int64_t rows = std::min(chunk, tokens_ - done);
      const std::vector<SequenceRows> sequences{{0, rows, done, pages_}};
      Values part(static_cast<std::size_t>(rows * wide()));
      const auto rows_of = [&](Values& values, std::int64_t width) {
        return TensorView(values.data() + done * width, Dtype::kF32, {rows, width});
      };
      const TensorView out(part.data(), Dtype::kF32, {rows, wide()});
      device_->ops().append_kv(kv_, sequences, rows_of(k_, narrow()), rows_of(v_, narrow()),
                               *stream_);
      device_->ops().paged_attention(shape(), kv_, sequences, rows_of(q_, wide()), out, *stream_);
      stream_->synchronize();
      y.insert(y.end(), part.begin(), part.end());
    }
    return y;
  }

  /// What attention over whole sequences gives of any keys and values.
  Values whole(Values k, Values v) {
    Values y(q_.size()), log_sum(static_cast<std::size_t>(tokens_ * heads_.heads));
    const auto view = [&](Values& values) {
      const auto width = static_cast<std::int64_t>(values.size()) / tokens_;
      return TensorView(values.data(), Dtype::kF32, {tokens_, width});
    };
    AttentionShape all = shape();
    all.sequences = 1;
    all.tokens = tokens_;
    device_->ops().attention(all, view(q_), view(k), view(v), {}, view(y), view(log_sum), *stream_);
    stream_->synchronize();
    return y;
  }

  Values& k() { return k_; }
  Values& v() { return v_; }

 private:
  std::int64_t wide() const { return heads_.heads * heads_.head_size; }
  std::int64_t narrow() const { return heads_.kv_heads * heads_.head_size; }
  AttentionShape shape() const {
    return {.heads = heads_.heads,
            .kv_heads = heads_.kv_heads,
            .head_size = heads_.head_size,
            .scale = 1.0f / std::sqrt(static_cast<float>(heads_.head_size)),
            .window = heads_.window};
  }

  Heads heads_;
  std::int64_t tokens_;
  std::vector<std::int32_t> pages_;
  Values q_, k_, v_;
  PagedKv kv_;
  Buffer memory_;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

const std::vector<std::int32_t> kInOrder{0, 1, 2, 3}, kAnyOrder{5, 2, 7, 0};

/// Of the larger numbers, not of each: |difference| / |want|, both as vectors.
double relative_error(const Values& got, const Values& want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got.at(i)) - static_cast<double>(want[i]);
    difference += d * d;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(difference / norm);
}

std::vector<Heads> cases() {
  std::vector<Heads> all;
  for (const Dtype dtype : {Dtype::kQ8, Dtype::kQ4}) {
    all.insert(all.end(),
               {{.pages = dtype},
                {.pages = dtype, .heads = 3, .kv_heads = 3, .head_size = 20},
                {.pages = dtype, .heads = 16, .kv_heads = 1, .head_size = 33},
                {.pages = dtype, .heads = 6, .kv_heads = 2, .head_size = 80},
                {.pages = dtype, .heads = 4, .kv_heads = 2, .head_size = 96, .window = 50},
                {.pages = dtype, .heads = 2, .kv_heads = 1, .head_size = 128, .window = 1},
                {.pages = dtype, .heads = 7, .kv_heads = 1, .head_size = 112}});
  }
  return all;
}

class QuantizedKv : public testing::TestWithParam<Heads> {};

TEST_P(QuantizedKv, IsAttentionOverWhatThePagesHold) {
  for (const std::int64_t tokens : {1, 63, 64, 65, 200}) {
    TextInPages run(GetParam(), tokens, kAnyOrder);
    const Values want = run.whole(as_kept(run.k(), GetParam()), as_kept(run.v(), GetParam()));
    for (const std::int64_t chunk : {std::int64_t{1}, tokens}) {
      const Values got = run.over_pages(chunk);
      for (std::size_t i = 0; i < want.size(); ++i) {
        ASSERT_NEAR(got.at(i), want[i], 1e-5) << i << " of " << tokens << ", chunks of " << chunk;
      }
    }
  }
}

TEST_P(QuantizedKv, GivesTheSameBitsHoweverTheTokensComeAndWherePagesLie) {
  const Values want = TextInPages(GetParam(), 200, kInOrder).over_pages(200);
  for (const std::int64_t chunk : {1, 2, 3, 17, 64}) {
    EXPECT_EQ(TextInPages(GetParam(), 200, kAnyOrder).over_pages(chunk), want)
        << "chunks of " << chunk;
  }
}

TEST_P(QuantizedKv, IsNearWhatWasNotQuantized) {
  TextInPages run(GetParam(), 200, kAnyOrder);
  Heads plain = GetParam();
  plain.pages = Dtype::kBf16;
  const Values want = run.whole(run.k(), run.v());
  const double error = relative_error(run.over_pages(7), want);
  const double of_bf16 = relative_error(TextInPages(plain, 200, kInOrder).over_pages(7), want);
  EXPECT_LT(of_bf16, 0.004);
  EXPECT_LT(error, GetParam().pages == Dtype::kQ8 ? 0.015 : 0.2);
  EXPECT_GT(error, of_bf16);
}

TEST_P(QuantizedKv, ATokenThatIsNoNumberSpoilsItselfOnly) {
  TextInPages run(GetParam(), 100, kInOrder);
  const Values want = run.over_pages(1);
  const std::size_t narrow = run.k().size() / 100, wide = want.size() / 100;
  run.k()[narrow * 90] = std::numeric_limits<float>::quiet_NaN();
  run.v()[narrow * 91] = std::numeric_limits<float>::infinity();
  const Values got = run.over_pages(1);
  for (std::size_t i = 0; i < 90 * wide; ++i) ASSERT_EQ(got[i], want[i]);
  EXPECT_FALSE(std::isfinite(got[90 * wide]));
  EXPECT_FALSE(std::isfinite(got[91 * wide]));
}

INSTANTIATE_TEST_SUITE_P(Shapes, QuantizedKv, testing::ValuesIn(cases()));

TEST(KvHeadLayout, SaysWhatATokenTakes) {
  const auto token = [](Dtype dtype, std::int64_t head_size) {
    return static_cast<double>(KvHeadLayout(dtype, head_size).bytes) / kPageTokens;
  };
  EXPECT_EQ(token(Dtype::kF32, 64), 2 * 64 * 4);
  EXPECT_EQ(token(Dtype::kBf16, 64), 2 * 64 * 2);
  EXPECT_EQ(token(Dtype::kQ8, 64), 2 * (64 + 2));
  EXPECT_EQ(token(Dtype::kQ4, 64), 2 * (32 + 2 + 1));
  EXPECT_EQ(token(Dtype::kBf16, 80), 2 * 80 * 2);
  EXPECT_EQ(token(Dtype::kQ8, 80), 2 * (80 + 2 * 2));
  EXPECT_EQ(token(Dtype::kQ4, 80), 2 * (40 + 2 * 3));
  EXPECT_EQ(token(Dtype::kQ4, 128), 2 * 2 * (32 + 2 + 1));
  EXPECT_EQ(token(Dtype::kQ8, 33), 36 + 48 + 2 * 2)
      << "keys are rounded up to whole bundles, values to whole vectors";
}

TEST(KvLines, HoldTheValuesOfQuantizedWeights) {
  for (const Dtype dtype : {Dtype::kQ8, Dtype::kQ4}) {
    const KvHeadLayout layout(dtype, 128);
    std::vector<std::byte> head(layout.bytes);
    const Heads heads{.pages = dtype, .head_size = 128};
    const Values key = normal(128, 5), value = normal(128, 6);
    cpu::store_kv_token(layout, key.data(), value.data(), 41, head.data());
    const cpu::KvPage page(layout, head.data(), head.data());
    const Values want_key = as_kept(key, heads), want_value = as_kept(value, heads);
    for (std::int64_t group = 0; group < 2; ++group) {
      Values keys(64 * 64), values(64 * 64);
      cpu::decode_kv_lines(page.keys(group), keys.data(), 64);
      cpu::decode_kv_lines(page.values(group, 41, 42), values.data(), 64);
      const auto key_scale = static_cast<float>(page.key_scales(group)[41]);
      const auto value_scale = static_cast<float>(page.value_scales(group)[41]);
      for (std::size_t i = 0; i < 64; ++i) {
        const std::size_t element = static_cast<std::size_t>(group) * 64 + i;
        EXPECT_EQ(keys[i * 64 + 41] * key_scale, want_key[element]);
        EXPECT_EQ(values[41 * 64 + i] * value_scale, want_value[element]);
      }
    }
  }
}

}  // namespace
}  // namespace strata
