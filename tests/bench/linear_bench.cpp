// strata_linear_bench [threads] [seconds per line] [bf16|fp32]: layers that generation multiplies
// by.
//
// For few rows the weights have to be read, and that is all: gigabytes of weights per second, of
// oneDNN on plain weights as they lie, of RowProduct on plain weights, of ByteProduct (rows of
// weights one after the other, and interleaved) and PanelProduct on q8 and q4, which take turns;
// the best round of each. Weights are larger than the caches, or are taken from several copies that
// are. Then what the layer takes of the time it takes oneDNN: the crossings that
// prefers_row_product() and prefers_byte_product() are made of.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/cpu/byte_product.h"
#include "core/cpu/matmul.h"
#include "core/cpu/panel_product.h"
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

void put(std::byte* to, Dtype dtype, std::int64_t i, float value) {
  if (dtype == Dtype::kF32) reinterpret_cast<float*>(to)[i] = value;
  if (dtype == Dtype::kBf16) reinterpret_cast<bf16*>(to)[i] = bf16(value);
}

Buffer filled(std::int64_t numel, Dtype dtype) {
  Buffer buffer = allocate_host(storage_bytes(dtype, numel));
  for (std::int64_t i = 0; i < numel; ++i) put(buffer.data(), dtype, i, value_of(i));
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
          put(to, weights, j, row[static_cast<std::size_t>(j)]);
        }
      }
    }
  }
  /// Rows as ByteProduct has those that stay.
  Weights interleaved(std::int64_t n, std::int64_t k) && {
    const Dtype plain = dtype;
    for (std::size_t copy = 0; copy < copies; ++copy) {
      const TensorView w(memory.data() + copy * bytes, plain, {n, k});
      if (!cpu::ByteProduct::possible({.compute = Dtype::kBf16, .weights = plain})) break;
      dtype = cpu::ByteProduct::interleaved(w);
      if (dtype != plain) cpu::ByteProduct::interleave(w);
    }
    return std::move(*this);
  }
  const void* next() { return memory.data() + bytes * (turn++ % copies); }

  Dtype dtype;
  std::size_t bytes;
  std::size_t copies;
  std::size_t turn = 0;
  Buffer memory;
};

/// A way to multiply by weights; `run` takes a copy of them that is not in cache.
struct Way {
  const char* name;
  std::size_t weight_bytes;
  std::function<void()> run;
  double best = 1e30;
};

void measure(std::int64_t n, std::int64_t k, Dtype compute, double seconds) {
  cpu::Matmul matmul;
  cpu::RowProduct row_product;
  cpu::PanelProduct panel_product;
  cpu::ByteProduct byte_product;
  Weights plain(compute, n, k), q8(Dtype::kQ8, n, k), q4(Dtype::kQ4, n, k);
  Weights q8x32 = Weights(Dtype::kQ8, n, k).interleaved(n, k);
  Weights q4x32 = Weights(Dtype::kQ4, n, k).interleaved(n, k);
  for (const std::int64_t rows : {1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 512}) {
    const Buffer x = filled(rows * k, compute);
    const Buffer y = allocate_host(storage_bytes(compute, rows * n));
    const auto product = [&](Weights& weights) {
      return cpu::LinearProduct{.rows = rows,
                                .n = n,
                                .k = k,
                                .compute = compute,
                                .weights = weights.dtype,
                                .output = compute,
                                .x = x.data(),
                                .w = weights.next(),
                                .bias = nullptr,
                                .y = y.data()};
    };
    const auto by_onednn = [&](cpu::OperandLayout layout) {
      matmul.run({.m = rows,
                  .n = n,
                  .k = k,
                  .compute = compute,
                  .output = compute,
                  .accumulate = false,
                  .a = {x.data(), false},
                  .b = {plain.next(), true},
                  .bias = nullptr,
                  .c = y.data()},
                 layout);
    };
    const auto by_bytes = [&](const cpu::LinearProduct& layer) {
      if (cpu::ByteProduct::possible(layer)) byte_product.run(layer);  // else no time at all
    };
    Way ways[] = {
        {"oneDNN", plain.bytes, [&] { by_onednn(cpu::OperandLayout::kPlain); }},
        {"packed", plain.bytes, [&] { by_onednn(cpu::OperandLayout::kPacked); }},
        {"plain rows", plain.bytes, [&] { row_product.run(product(plain)); }},
        {"q8 bytes", q8.bytes, [&] { by_bytes(product(q8)); }},
        {"q8x32 bytes", q8x32.bytes, [&] { by_bytes(product(q8x32)); }},
        {"q8 panels", q8.bytes, [&] { panel_product.run(product(q8)); }},
        {"q4 bytes", q4.bytes, [&] { by_bytes(product(q4)); }},
        {"q4x32 bytes", q4x32.bytes, [&] { by_bytes(product(q4x32)); }},
        {"q4 panels", q4.bytes, [&] { panel_product.run(product(q4)); }},
    };
    double spent = 0;
    for (int round = 0; round < 3 || spent < seconds; ++round) {
      for (Way& way : ways) {
        const double took = seconds_of(way.run);
        spent += took;
        if (round > 0) way.best = std::min(way.best, took);
      }
    }
    std::printf("[%6lld, %5lld] rows %4lld\n", static_cast<long long>(n), static_cast<long long>(k),
                static_cast<long long>(rows));
    for (const Way& way : ways) {
      std::printf("  %-11s %5.1f GB/s %4.0f GFLOP/s %5.2f\n", way.name,
                  static_cast<double>(way.weight_bytes) / way.best * 1e-9,
                  2.0 * static_cast<double>(rows * n * k) / way.best * 1e-9,
                  way.best / ways[0].best);
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1.0;
  const Dtype compute =
      argc > 3 && std::string_view(argv[3]) == "fp32" ? Dtype::kF32 : Dtype::kBf16;
  try {
    omp_set_num_threads(threads);
    constexpr std::int64_t kShapes[][2] = {
        {2048, 2048}, {8192, 2048}, {2048, 8192}, {4096, 4096}, {128256, 2048}};
    for (const auto& [n, k] : kShapes) measure(n, k, compute, seconds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
