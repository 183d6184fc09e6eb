// strata_attention_bench [threads] [seconds per line]: attention of texts that grow by one token.
//
// It has to read the keys and values of every token, and that is all: gigabytes of pages per
// second, of bf16, int8 and int4, beside a loop that only adds up memory; they take turns, and
// the best round of each counts. Pages are larger than the caches and lie in no order.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <numeric>
#include <vector>

#include "core/device.h"
#include "core/ops.h"

namespace {

using namespace strata;

constexpr std::int64_t kTexts = 8;
constexpr std::int64_t kTokens = 2048;
constexpr std::size_t kLeastBytes = std::size_t{192} << 20;

struct HeadShape {
  const char* name;
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_size;
};

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Layers of pages in one format, to be attended over in turn.
class Layers {
 public:
  Layers(const HeadShape& shape, Dtype dtype, Device& device, Stream& stream)
      : shape_(shape), device_(device), stream_(stream) {
    kv_ = {.memory = nullptr,
           .page_stride = 0,
           .dtype = dtype,
           .kv_heads = shape.kv_heads,
           .head_size = shape.head_size};
    kv_.page_stride = kv_.page_bytes();
    const std::int64_t pages = kTexts * kTokens / kPageTokens;
    layer_bytes_ = static_cast<std::size_t>(pages) * kv_.page_stride;
    layers_ = kLeastBytes / layer_bytes_ + 1;
    memory_ = allocate_host(layers_ * layer_bytes_);
    for (std::int64_t i = 0; i < pages; ++i) {
      pages_.push_back(static_cast<std::int32_t>(i * 37 % pages));
    }
    fill();
  }

  double gigabytes() const { return static_cast<double>(layer_bytes_) * 1e-9; }

  void attend() {
    kv_.memory = memory_.data() + layer_bytes_ * (turn_++ % layers_);
    device_.ops().paged_attention({.heads = shape_.heads,
                                   .kv_heads = shape_.kv_heads,
                                   .head_size = shape_.head_size,
                                   .scale = 0.125f},
                                  kv_, rows(kTokens - 1, 1), view(q_, 1, shape_.heads),
                                  view(y_, 1, shape_.heads), stream_);
    stream_.synchronize();
  }

 private:
  TensorView view(std::vector<bf16>& values, std::int64_t tokens, std::int64_t heads) {
    const std::int64_t width = heads * shape_.head_size;
    values.resize(static_cast<std::size_t>(kTexts * tokens * width));
    return {values.data(), Dtype::kBf16, {kTexts * tokens, width}};
  }
  std::span<const SequenceRows> rows(std::int64_t position, std::int64_t count) {
    const std::span<const std::int32_t> all = pages_;
    rows_.clear();
    for (std::int64_t text = 0; text < kTexts; ++text) {
      const auto begin = static_cast<std::size_t>(text * kTokens / kPageTokens);
      rows_.push_back({.row = text * count,
                       .rows = count,
                       .position = position,
                       .pages = all.subspan(begin, kTokens / kPageTokens)});
    }
    return rows_;
  }
  void fill() {
    std::vector<bf16> tokens;
    const TensorView all = view(tokens, kTokens, shape_.kv_heads);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = bf16(static_cast<float>(i * 37 % 101) / 50.0f - 1.0f);
    }
    for (std::size_t layer = 0; layer < layers_; ++layer) {
      kv_.memory = memory_.data() + layer_bytes_ * layer;
      device_.ops().append_kv(kv_, rows(0, kTokens), all, all, stream_);
      stream_.synchronize();
    }
    view(q_, 1, shape_.heads);
    view(y_, 1, shape_.heads);
    for (std::size_t i = 0; i < q_.size(); ++i) {
      q_[i] = bf16(static_cast<float>(i * 53 % 97) / 48.0f - 1.0f);
    }
  }

  HeadShape shape_;
  Device& device_;
  Stream& stream_;
  PagedKv kv_;
  std::size_t layer_bytes_ = 0, layers_ = 0, turn_ = 0;
  Buffer memory_;
  std::vector<std::int32_t> pages_;
  std::vector<SequenceRows> rows_;
  std::vector<bf16> q_, y_;
};

/// Reads memory as `strata bench memory` does for its sum.
class Reading {
 public:
  Reading() : values_(kLeastBytes / sizeof(float)) {
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < values_.size(); ++i) values_[i] = 1.0f;
  }
  double gigabytes() const { return static_cast<double>(kLeastBytes) * 1e-9; }
  void run() {
    double total = 0;
#pragma omp parallel reduction(+ : total)
    {
      const auto thread = static_cast<std::size_t>(omp_get_thread_num());
      const auto threads = static_cast<std::size_t>(omp_get_num_threads());
      const std::size_t share = values_.size() / threads / 64 * 64;
      const float* from = values_.data() + share * thread;
      float sums[64] = {};
      for (std::size_t i = 0; i < share; i += 64) {
        for (std::size_t j = 0; j < 64; ++j) sums[j] += from[i + j];
      }
      total += static_cast<double>(std::accumulate(sums, sums + 64, 0.0f));
    }
    if (total <= 0) std::abort();
  }

 private:
  std::vector<float> values_;
};

void measure(const HeadShape& shape, int threads, double seconds) {
  const std::unique_ptr<Device> device = make_cpu_device(threads);
  const std::unique_ptr<Stream> stream = device->make_stream();
  Reading reading;
  Layers bf16_layers(shape, Dtype::kBf16, *device, *stream);
  Layers q8(shape, Dtype::kQ8, *device, *stream), q4(shape, Dtype::kQ4, *device, *stream);
  const std::function<void()> ways[] = {[&] { reading.run(); }, [&] { bf16_layers.attend(); },
                                        [&] { q8.attend(); }, [&] { q4.attend(); }};
  const double gigabytes[] = {reading.gigabytes(), bf16_layers.gigabytes(), q8.gigabytes(),
                              q4.gigabytes()};
  double best[4] = {1e30, 1e30, 1e30, 1e30};
  double spent = 0;
  for (int round = 0; round < 4 || spent < seconds; ++round) {
    for (int way = 0; way < 4; ++way) {
      const double now = seconds_of(ways[way]);
      spent += now;
      if (round > 0) best[way] = std::min(best[way], now);
    }
  }
  const double memory = gigabytes[0] / best[0];
  std::printf("%-10s %d threads: memory %5.1f GB/s", shape.name, threads, memory);
  constexpr const char* kNames[] = {"", "bf16", "int8", "int4"};
  for (int way = 1; way < 4; ++way) {
    const double rate = gigabytes[way] / best[way];
    std::printf("  %s %5.1f GB/s %4.2f, %6.3f ms", kNames[way], rate, rate / memory,
                1e3 * best[way]);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
  const double seconds = argc > 2 ? std::atof(argv[2]) : 2.0;
  try {
    omp_set_num_threads(threads);
    constexpr HeadShape kShapes[] = {
        {"llama-1b", 32, 8, 64}, {"opt-1.3b", 32, 32, 64}, {"llama-8b", 32, 8, 128}};
    for (const HeadShape& shape : kShapes) measure(shape, threads, seconds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
