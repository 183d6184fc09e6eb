// strata_ops_bench [threads] [rounds]: the operations of a transformer layer on this CPU.
//
// First products, with operands as they lie, packed first, and as CpuOps chooses; then attention.
// Times are the best of `rounds`. Other work on the same cores shows in every figure.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <vector>

#include "core/cpu/matmul.h"
#include "core/device.h"
#include "core/ops.h"

namespace {

using namespace strata;

double best_seconds(int rounds, const std::function<void()>& work) {
  double best = 1e9;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

/// Host memory full of small numbers: products of zeros or of NaNs would not be typical.
Buffer filled(std::int64_t numel) {
  Buffer buffer = allocate_host(static_cast<std::size_t>(numel) * sizeof(bf16));
  auto* values = reinterpret_cast<bf16*>(buffer.data());
  for (std::int64_t i = 0; i < numel; ++i) {
    values[i] = bf16(static_cast<float>(i * 37 % 101 - 50) / 100.0f);
  }
  return buffer;
}

struct ProductShape {
  const char* name;
  std::int64_t m, n, k;
  bool a_transposed, b_transposed, accumulate;
};

void measure_product(cpu::Matmul& matmul, const ProductShape& shape, int rounds) {
  const Buffer a = filled(shape.m * shape.k), b = filled(shape.k * shape.n);
  const Buffer c = allocate_host(static_cast<std::size_t>(shape.m * shape.n) * sizeof(float));
  const cpu::Product product{.m = shape.m,
                             .n = shape.n,
                             .k = shape.k,
                             .compute = Dtype::kBf16,
                             .output = shape.accumulate ? Dtype::kF32 : Dtype::kBf16,
                             .accumulate = shape.accumulate,
                             .a = {a.data(), shape.a_transposed},
                             .b = {b.data(), shape.b_transposed},
                             .bias = nullptr,
                             .c = c.data()};
  const double flops = 2.0 * static_cast<double>(shape.m * shape.n * shape.k);
  const auto rate = [&](cpu::OperandLayout layout) {
    return flops / best_seconds(rounds, [&] { matmul.run(product, layout); }) * 1e-9;
  };
  const double plain = rate(cpu::OperandLayout::kPlain);
  const double packed = rate(cpu::OperandLayout::kPacked);
  const bool packs =
      cpu::preferred_layout(shape.b_transposed, shape.m) == cpu::OperandLayout::kPacked;
  std::printf("%-8s m %5lld n %5lld k %5lld: plain %7.1f, packed %7.1f GFLOP/s; chosen %.2f\n",
              shape.name, static_cast<long long>(shape.m), static_cast<long long>(shape.n),
              static_cast<long long>(shape.k), plain, packed,
              (packs ? packed : plain) / std::max(plain, packed));
}

void measure_products(int rounds) {
  cpu::Matmul matmul;
  constexpr std::int64_t kFeatures[][2] = {{512, 512}, {768, 3072}, {4096, 4096}, {1024, 8192}};
  for (const std::int64_t rows : {1, 16, 256, 2048}) {
    for (const auto& [in, out] : kFeatures) {
      measure_product(matmul, {"forward", rows, out, in, false, true, false}, rounds);
      if (rows < 256) continue;  // generation only goes forward
      measure_product(matmul, {"input", rows, in, out, false, false, false}, rounds);
      measure_product(matmul, {"weight", out, in, rows, true, false, true}, rounds);
    }
  }
}

void measure_attention(Device& device, const AttentionShape& shape, int rounds) {
  const auto stream = device.make_stream();
  const std::int64_t rows = shape.sequences * shape.tokens;
  const Shape query{rows, shape.heads * shape.head_size};
  const Shape key{rows, shape.kv_heads * shape.head_size};
  std::vector<Buffer> memory;
  const auto tensor = [&](const Shape& size) {
    memory.push_back(filled(size.numel()));
    return memory.back().view(Dtype::kBf16, size);
  };
  const TensorView q = tensor(query), y = tensor(query), dy = tensor(query), dq = tensor(query);
  const TensorView k = tensor(key), v = tensor(key), dk = tensor(key), dv = tensor(key);
  const Buffer sums = allocate_host(static_cast<std::size_t>(rows * shape.heads) * sizeof(float));
  const TensorView log_sum = sums.view(Dtype::kF32, {rows, shape.heads});
  const double forward = best_seconds(
      rounds, [&] { device.ops().attention(shape, q, k, v, {}, y, log_sum, *stream); });
  const double backward = best_seconds(rounds, [&] {
    device.ops().attention_backward(shape, dy, q, k, v, {}, y, log_sum, dq, dk, dv, *stream);
  });
  // Two products forward, five backward, over the half of the scores that is not masked.
  const double flops = 2.0 * static_cast<double>(query.numel() * shape.tokens);
  std::printf(
      "attention B %lld S %lld H %lld G %lld D %lld: forward %.2f ms %.0f GFLOP/s, "
      "backward %.2f ms %.0f GFLOP/s\n",
      static_cast<long long>(shape.sequences), static_cast<long long>(shape.tokens),
      static_cast<long long>(shape.heads), static_cast<long long>(shape.kv_heads),
      static_cast<long long>(shape.head_size), forward * 1e3, flops / forward * 1e-9,
      backward * 1e3, 2.5 * flops / backward * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  try {
    const auto device = make_cpu_device(threads);
    omp_set_num_threads(threads);
    measure_products(rounds);
    for (const AttentionShape& shape :
         {AttentionShape{2, 256, 12, 12, 64, 0.125f}, AttentionShape{1, 2048, 12, 12, 64, 0.125f},
          AttentionShape{1, 2048, 32, 8, 128, 0.088f}, AttentionShape{1, 8192, 2, 1, 64, 0.125f}}) {
      measure_attention(*device, shape, rounds);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
