// strata_linear_bench [threads] [seconds per line]: layers that generation multiplies by.
//
// For few rows the weights have to be read, and that is all: gigabytes of weights per second, of
// oneDNN on bf16 as it lies and of RowProduct on bf16, q8 and q4, which take turns; the best round
// of each. Weights are larger than the caches, or are taken from several copies that are.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <vector>

#include "core/cpu/matmul.h"
#include "core/cpu/row_product.h"
#include "core/device.h"
#include "core/group_quantization.h"

namespace {

using namespace strata;

constexpr std::size_t kLeastBytes = std::size_t{128} << 20;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

float value_of(std::int64_t i) { return static_cast<float>(i * 37 % 101 - 50) / 100.0f; }

Buffer filled(std::int64_t numel) {
  Buffer buffer = allocate_host(static_cast<std::size_t>(numel) * sizeof(bf16));
  auto* values = reinterpret_cast<bf16*>(buffer.data());
  for (std::int64_t i = 0; i < numel; ++i) values[i] = bf16(value_of(i));
  return buffer;
}

/// Copies of a matrix of weights, one after the other, to be used in turn.
struct Weights {
  Weights(Dtype weights, std::int64_t n, std::int64_t k)
      : dtype(weights), bytes(storage_bytes(weights, n * k)), copies(kLeastBytes / bytes + 1) {
    memory = allocate_host(copies * bytes);
    std::vector<float> row(static_cast<std::size_t>(k));
    const std::size_t row_bytes = storage_bytes(weights, k);
    for (std::int64_t i = 0; i < n * static_cast<std::int64_t>(copies); ++i) {
      for (std::int64_t j = 0; j < k; ++j) row[static_cast<std::size_t>(j)] = value_of(i % 64 + j);
      std::byte* to = memory.data() + static_cast<std::size_t>(i) * row_bytes;
      if (is_quantized(weights)) {
        quantize(row, weights, to);
      } else {
        for (std::int64_t j = 0; j < k; ++j) {
          reinterpret_cast<bf16*>(to)[j] = bf16(row[static_cast<std::size_t>(j)]);
        }
      }
    }
  }
  const void* next() { return memory.data() + bytes * (turn++ % copies); }

  Dtype dtype;
  std::size_t bytes;
  std::size_t copies;
  std::size_t turn = 0;
  Buffer memory;
};

void measure(std::int64_t n, std::int64_t k, double seconds) {
  cpu::Matmul matmul;
  cpu::RowProduct row_product;
  Weights bf16_weights(Dtype::kBf16, n, k), q8(Dtype::kQ8, n, k), q4(Dtype::kQ4, n, k);
  for (const std::int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 512}) {
    const Buffer x = filled(rows * k);
    const Buffer y = allocate_host(static_cast<std::size_t>(rows * n) * sizeof(bf16));
    const auto ours = [&](Weights& weights) {
      row_product.run({.rows = rows,
                       .n = n,
                       .k = k,
                       .compute = Dtype::kBf16,
                       .weights = weights.dtype,
                       .output = Dtype::kBf16,
                       .x = x.data(),
                       .w = weights.next(),
                       .bias = nullptr,
                       .y = y.data()});
    };
    const auto theirs = [&](cpu::OperandLayout layout) {
      matmul.run({.m = rows,
                  .n = n,
                  .k = k,
                  .compute = Dtype::kBf16,
                  .output = Dtype::kBf16,
                  .accumulate = false,
                  .a = {x.data(), false},
                  .b = {bf16_weights.next(), true},
                  .bias = nullptr,
                  .c = y.data()},
                 layout);
    };
    const std::function<void()> ways[] = {
        [&] { theirs(cpu::OperandLayout::kPlain); }, [&] { theirs(cpu::OperandLayout::kPacked); },
        [&] { ours(bf16_weights); }, [&] { ours(q8); }, [&] { ours(q4); }};
    double best[5] = {1e30, 1e30, 1e30, 1e30, 1e30};
    double spent = 0;
    for (int round = 0; round < 3 || spent < seconds; ++round) {
      for (int way = 0; way < 5; ++way) {
        const double took = seconds_of(ways[way]);
        spent += took;
        if (round > 0) best[way] = std::min(best[way], took);
      }
    }
    const double sizes[] = {
        1, 1, 1, static_cast<double>(q8.bytes) / static_cast<double>(bf16_weights.bytes),
        static_cast<double>(q4.bytes) / static_cast<double>(bf16_weights.bytes)};
    std::printf("[%6lld, %5lld] rows %4lld:", static_cast<long long>(n), static_cast<long long>(k),
                static_cast<long long>(rows));
    constexpr const char* kNames[] = {"oneDNN", "packed", "bf16", "q8", "q4"};
    for (int way = 0; way < 5; ++way) {
      const double bytes = sizes[way] * static_cast<double>(bf16_weights.bytes);
      std::printf("  %s %5.1f GB/s %4.0f GFLOP/s", kNames[way], bytes / best[way] * 1e-9,
                  2.0 * static_cast<double>(rows * n * k) / best[way] * 1e-9);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1.0;
  try {
    omp_set_num_threads(threads);
    constexpr std::int64_t kShapes[][2] = {
        {2048, 2048}, {8192, 2048}, {2048, 8192}, {4096, 4096}, {128256, 2048}};
    for (const auto& [n, k] : kShapes) measure(n, k, seconds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
