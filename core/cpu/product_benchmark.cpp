#include "core/cpu/product_benchmark.h"

#include <omp.h>

#include <algorithm>
#include <chrono>

#include "core/cpu/cpu_ops.h"
#include "core/cpu/matmul.h"
#include "core/cpu/numeric.h"
#include "core/device.h"
#include "core/group_quantization.h"

namespace strata::cpu {
namespace {

constexpr int kLeastRounds = 3;

/// Small numbers: products of zeros, infinities or NaNs would not be typical.
float value_of(std::int64_t i) { return static_cast<float>(i * 37 % 101 - 50) / 100.0f; }

Buffer filled(std::int64_t numel, Dtype dtype) {
  Buffer buffer = allocate_host(static_cast<std::size_t>(numel) * size_bytes(dtype));
  for (std::int64_t i = 0; i < numel; ++i) {
    const float value = value_of(i);
    if (dtype == Dtype::kF32) {
      reinterpret_cast<float*>(buffer.data())[i] = value;
    } else {
      reinterpret_cast<bf16*>(buffer.data())[i] = bf16(value);
    }
  }
  return buffer;
}

/// The same numbers, where they are quantised.
Buffer quantized(std::int64_t numel, Dtype dtype) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < numel; ++i) values.push_back(value_of(i));
  Buffer buffer = allocate_host(storage_bytes(dtype, numel));
  quantize(values, dtype, buffer.data());
  return buffer;
}

template <typename Work>
double seconds_of(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// The operands of one layer and its three products, as Ops takes them and as oneDNN does.
class Layer {
 public:
  /// Quantised weights are arranged as `ops` has those that stay.
  Layer(const LinearShape& shape, Dtype compute, Dtype weights, Ops& ops, Stream& stream)
      : shape_(shape),
        compute_(compute),
        weights_(weights),
        x_(filled(shape.rows * shape.in, compute)),
        w_(filled(shape.out * shape.in, compute)),
        y_(filled(shape.rows * shape.out, compute)),
        dw_(filled(shape.out * shape.in, Dtype::kF32)) {
    if (!is_quantized(weights)) return;
    quantized_ = quantized(shape.out * shape.in, weights);
    weights_ = ops.arrange(quantized_.view(weights, {shape.out, shape.in}), compute, stream);
  }

  std::vector<Product> products() const {
    const MatrixOperand x{x_.data(), false}, y{y_.data(), false};
    return {{.m = shape_.rows,
             .n = shape_.out,
             .k = shape_.in,
             .compute = compute_,
             .output = compute_,
             .accumulate = false,
             .a = x,
             .b = {w_.data(), true},
             .bias = nullptr,
             .c = y_.data()},
            {.m = shape_.rows,
             .n = shape_.in,
             .k = shape_.out,
             .compute = compute_,
             .output = compute_,
             .accumulate = false,
             .a = y,
             .b = {w_.data(), false},
             .bias = nullptr,
             .c = x_.data()},
            {.m = shape_.out,
             .n = shape_.in,
             .k = shape_.rows,
             .compute = compute_,
             .output = Dtype::kF32,
             .accumulate = true,
             .a = {y_.data(), true},
             .b = x,
             .bias = nullptr,
             .c = dw_.data()}};
  }

  void run_ours(std::size_t product, Ops& ops, Stream& stream) const {
    const TensorView x = x_.view(compute_, {shape_.rows, shape_.in});
    const Buffer& kept = is_quantized(weights_) ? quantized_ : w_;
    const TensorView w = kept.view(weights_, {shape_.out, shape_.in});
    const TensorView y = y_.view(compute_, {shape_.rows, shape_.out});
    if (product == 0) ops.linear(x, w, {}, y, stream);
    if (product == 1) ops.linear_backward_input(y, w, x, false, stream);
    if (product == 2) {
      ops.linear_backward_weight(y, x, dw_.view(Dtype::kF32, {shape_.out, shape_.in}), {}, stream);
    }
    stream.synchronize();
  }

 private:
  LinearShape shape_;
  Dtype compute_, weights_;
  Buffer x_, w_, y_, dw_;
  Buffer quantized_;
};

/// The shortest time of each way, the ways taking turns.
void measure(const Layer& layer, std::size_t which, CpuOps& ops, Stream& stream, double seconds,
             ProductRates& rates) {
  Matmul matmul;
  const Product product = layer.products()[which];
  double ours = 1e30, plain = 1e30, packed = 1e30, spent = 0;
  const auto run = [&](double& best, const auto& work) {
    const double took = seconds_of(work);
    best = std::min(best, took);
    spent += took;
  };
  for (int round = 0; round <= kLeastRounds || spent < seconds; ++round) {
    if (round == 1) ours = plain = packed = 1e30;  // the first round only warms up
    run(ours, [&] { layer.run_ours(which, ops, stream); });
    run(plain, [&] { matmul.run(product, OperandLayout::kPlain); });
    run(packed, [&] { matmul.run(product, OperandLayout::kPacked); });
  }
  const double operations = rates.operations() / rates.count;
  rates.ours = operations / ours;
  rates.plain = operations / plain;
  rates.packed = operations / packed;
}

}  // namespace

std::vector<ProductRates> measure_products(std::span<const LinearShape> layers, Dtype compute,
                                           int threads, double seconds) {
  constexpr const char* kNames[] = {"forward", "dx", "dw"};
  std::vector<Dtype> formats{compute};
  if (compute == Dtype::kBf16) formats.insert(formats.end(), {Dtype::kQ8, Dtype::kQ4});
  const std::size_t products_of_a_layer = std::size(kNames) + formats.size() - 1;
  const double each =
      seconds / static_cast<double>(products_of_a_layer * std::max<std::size_t>(1, layers.size()));
  omp_set_num_threads(threads);
  CpuOps ops(threads);
  const std::unique_ptr<Stream> stream = make_inline_stream();
  std::vector<ProductRates> all;
  for (const LinearShape& shape : layers) {
    expects(shape.rows > 0 && shape.in > 0 && shape.out > 0, "a product to measure has terms");
    for (const Dtype weights : formats) {
      if (is_quantized(weights) && shape.in % kGroupNumel != 0) continue;
      const Layer layer(shape, compute, weights, ops, *stream);
      std::vector<Product> products = layer.products();
      if (is_quantized(weights)) products.resize(1);  // such weights are frozen
      for (std::size_t which = 0; which < products.size(); ++which) {
        ProductRates rates{.name = shape.name,
                           .product = kNames[which],
                           .weights = weights,
                           .m = products[which].m,
                           .n = products[which].n,
                           .k = products[which].k,
                           .count = static_cast<double>(shape.count)};
        measure(layer, which, ops, *stream, each, rates);
        all.push_back(rates);
      }
    }
  }
  return all;
}

double rate_of_all(std::span<const ProductRates> rates, Dtype weights,
                   double (*rate)(const ProductRates&)) {
  double operations = 0;
  double seconds = 0;
  for (const ProductRates& row : rates) {
    if (row.weights != weights) continue;
    operations += row.operations();
    seconds += row.operations() / rate(row);
  }
  return seconds > 0 ? operations / seconds : 0;
}

}  // namespace strata::cpu
