// Attention over pages against attention over whole sequences, in any order of work.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "core/device.h"
#include "core/ops.h"
#include "core/random.h"

namespace strata {
namespace {

struct Heads {
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t head_size = 32;
  std::int64_t window = 0;
};

std::vector<float> normal(std::int64_t count, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  fill_normal(random_key(seed, "values"), 0, 1.0, values);
  return values;
}

/// One sequence: its queries, keys and values, and where its pages are.
struct Sequence {
  Sequence(const Heads& heads, std::int64_t count, std::uint64_t seed)
      : tokens(count),
        q(normal(count * heads.heads * heads.head_size, 3 * seed)),
        k(normal(count * heads.kv_heads * heads.head_size, 3 * seed + 1)),
        v(normal(count * heads.kv_heads * heads.head_size, 3 * seed + 2)) {}
  std::int64_t tokens;
  std::vector<float> q, k, v;
  std::vector<std::int32_t> pages;
  std::int64_t done = 0;
  std::vector<float> y;  // of the tokens that are done
};

class Cache {
 public:
  Cache(const Heads& heads, Dtype dtype, int pages) : heads_(heads) {
    kv_ = {.memory = nullptr,
           .page_stride = 0,
           .dtype = dtype,
           .kv_heads = heads.kv_heads,
           .head_size = heads.head_size};
    kv_.page_stride = kv_.page_bytes() + 64;
    memory_.resize(kv_.page_stride * static_cast<std::size_t>(pages));
    kv_.memory = memory_.data();
    std::memset(memory_.data(), 0xff, memory_.size());  // NaN in every dtype
    for (int page = pages - 1; page >= 0; --page) free_.push_back((page * 7) % pages);
  }

  /// Appends `counts[i]` tokens of sequence i and attends, all in one batch.
  void step(std::vector<Sequence*> sequences, const std::vector<std::int64_t>& counts) {
    std::vector<SequenceRows> spans;
    std::vector<float> q, k, v;
    std::int64_t row = 0;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from,
                           std::int64_t begin, std::int64_t count, std::int64_t width) {
      to.insert(to.end(), from.begin() + begin * width, from.begin() + (begin + count) * width);
    };
    const std::int64_t wide = heads_.heads * heads_.head_size;
    const std::int64_t narrow = heads_.kv_heads * heads_.head_size;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      Sequence& sequence = *sequences[i];
      while (static_cast<std::int64_t>(sequence.pages.size()) * kPageTokens <
             sequence.done + counts[i]) {
        sequence.pages.push_back(free_.back());
        free_.pop_back();
      }
      spans.push_back({row, counts[i], sequence.done, sequence.pages});
      append(q, sequence.q, sequence.done, counts[i], wide);
      append(k, sequence.k, sequence.done, counts[i], narrow);
      append(v, sequence.v, sequence.done, counts[i], narrow);
      row += counts[i];
    }
    std::vector<float> y(q.size());
    const auto view = [row](std::vector<float>& values, std::int64_t width) {
      return TensorView(values.data(), Dtype::kF32, {row, width});
    };
    Ops& ops = device_->ops();
    ops.append_kv(kv_, spans, view(k, narrow), view(v, narrow), *stream_);
    ops.paged_attention({.heads = heads_.heads,
                         .kv_heads = heads_.kv_heads,
                         .head_size = heads_.head_size,
                         .scale = 0.3f,
                         .window = heads_.window},
                        kv_, spans, view(q, wide), view(y, wide), *stream_);
    stream_->synchronize();
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      append(sequences[i]->y, y, spans[i].row, spans[i].rows, wide);
      sequences[i]->done += counts[i];
    }
  }

  std::vector<float> whole(Sequence& sequence) {
    std::vector<float> y(sequence.q.size());
    std::vector<float> log_sum(static_cast<std::size_t>(sequence.tokens * heads_.heads));
    const auto view = [&](std::vector<float>& values) {
      const auto width = static_cast<std::int64_t>(values.size()) / sequence.tokens;
      return TensorView(values.data(), Dtype::kF32, {sequence.tokens, width});
    };
    device_->ops().attention({.sequences = 1,
                              .tokens = sequence.tokens,
                              .heads = heads_.heads,
                              .kv_heads = heads_.kv_heads,
                              .head_size = heads_.head_size,
                              .scale = 0.3f,
                              .window = heads_.window},
                             view(sequence.q), view(sequence.k), view(sequence.v), {}, view(y),
                             view(log_sum), *stream_);
    stream_->synchronize();
    return y;
  }

 private:
  Heads heads_;
  PagedKv kv_;
  std::vector<std::byte> memory_;
  std::vector<std::int32_t> free_;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

std::vector<float> in_chunks(const Heads& heads, std::int64_t tokens, std::int64_t chunk) {
  Cache cache(heads, Dtype::kF32, 8);
  Sequence sequence(heads, tokens, 1);
  while (sequence.done < tokens) {
    cache.step({&sequence}, {std::min(chunk, tokens - sequence.done)});
  }
  return sequence.y;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, float tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
}

const Heads kCases[] = {{},
                        {.heads = 3, .kv_heads = 3, .head_size = 20},
                        {.heads = 16, .kv_heads = 1, .head_size = 64},
                        {.heads = 4, .kv_heads = 2, .head_size = 33, .window = 50},
                        {.heads = 2, .kv_heads = 1, .head_size = 128, .window = 1}};

TEST(PagedAttention, IsAttention) {
  for (const Heads& heads : kCases) {
    for (const std::int64_t tokens : {1, 63, 64, 65, 200}) {
      SCOPED_TRACE(testing::Message() << heads.heads << "/" << heads.kv_heads << " of "
                                      << heads.head_size << ", " << tokens << " tokens");
      Cache cache(heads, Dtype::kF32, 8);
      Sequence sequence(heads, tokens, 1);
      cache.step({&sequence}, {tokens});
      expect_near(sequence.y, cache.whole(sequence), 2e-6f);
    }
  }
}

TEST(PagedAttention, GivesTheSameBitsHoweverTheTokensCome) {
  for (const Heads& heads : kCases) {
    const std::vector<float> want = in_chunks(heads, 200, 200);
    for (const std::int64_t chunk : {1, 3, 17, 64}) {
      EXPECT_EQ(in_chunks(heads, 200, chunk), want) << heads.heads << " heads, chunks of " << chunk;
    }
  }
}

TEST(PagedAttention, SequencesOfABatchDoNotSeeEachOther) {
  const Heads heads;
  Cache cache(heads, Dtype::kF32, 16);
  Sequence a(heads, 150, 1), b(heads, 70, 2), c(heads, 5, 3);
  cache.step({&a, &b}, {100, 1});
  cache.step({&b, &c, &a}, {68, 4, 1});
  cache.step({&c, &a, &b}, {1, 49, 1});
  for (Sequence* sequence : {&a, &b, &c}) {
    Cache alone(heads, Dtype::kF32, 8);
    Sequence same = *sequence;
    same.pages.clear();
    same.done = 0;
    same.y.clear();
    alone.step({&same}, {same.tokens});
    EXPECT_EQ(sequence->y, same.y);
  }
}

TEST(PagedAttention, KeepsBf16Pages) {
  const Heads heads;
  Cache cache(heads, Dtype::kBf16, 8);
  Sequence sequence(heads, 100, 1);
  for (std::vector<float>* values : {&sequence.k, &sequence.v}) {
    for (float& value : *values) value = static_cast<float>(bf16(value));
  }
  cache.step({&sequence}, {90});
  for (int i = 0; i < 10; ++i) cache.step({&sequence}, {1});
  expect_near(sequence.y, cache.whole(sequence), 2e-6f);
}

}  // namespace
}  // namespace strata
