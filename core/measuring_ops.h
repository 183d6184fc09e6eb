#pragma once

#include <algorithm>

#include "core/ops.h"

namespace strata {

/// Operations that only count. With a Workspace that only measures, running a block over them tells
/// what it needs without touching memory: any block, also a user's own.
class MeasuringOps final : public Ops {
 public:
  /// Multiplications and additions of products and attention so far; 2 T K N for a product.
  double operations() const noexcept { return operations_; }
  /// Those of gradients among them.
  double gradient_operations() const noexcept { return gradient_operations_; }

  void linear(ConstTensorView x, ConstTensorView w, ConstTensorView, TensorView, Stream&) override {
    product(x, w);
  }
  void linear_backward_input(ConstTensorView dy, ConstTensorView w, TensorView, bool,
                             Stream&) override {
    add_gradient(2.0 * static_cast<double>(dy.numel()) * static_cast<double>(w.shape()[1]));
  }
  void linear_backward_weight(ConstTensorView dy, ConstTensorView x, TensorView dw, TensorView,
                              Stream&) override {
    if (dw.empty()) return;
    add_gradient(2.0 * static_cast<double>(dy.numel()) * static_cast<double>(x.shape()[1]));
  }
  void embedding(ConstTensorView, ConstTensorView, TensorView, bool, Stream&) override {}
  void embedding_backward(ConstTensorView, ConstTensorView, std::int64_t, TensorView,
                          Stream&) override {}
  void rms_norm(ConstTensorView, ConstTensorView, float, TensorView, TensorView, Stream&) override {
  }
  void rms_norm_backward(ConstTensorView, ConstTensorView, ConstTensorView, ConstTensorView,
                         TensorView, TensorView, Stream&) override {}
  void layer_norm(ConstTensorView, ConstTensorView, ConstTensorView, float, TensorView, TensorView,
                  TensorView, Stream&) override {}
  void layer_norm_backward(ConstTensorView, ConstTensorView, ConstTensorView, ConstTensorView,
                           ConstTensorView, TensorView, TensorView, TensorView, Stream&) override {}
  void rotary(TensorView, std::int64_t, ConstTensorView, ConstTensorView, float, bool,
              Stream&) override {}
  void attention(const AttentionShape& shape, ConstTensorView, ConstTensorView, ConstTensorView,
                 ConstTensorView, TensorView, TensorView, Stream&) override {
    operations_ += 2.0 * attention_product(shape);
  }
  void attention_backward(const AttentionShape& shape, ConstTensorView, ConstTensorView,
                          ConstTensorView, ConstTensorView, ConstTensorView, ConstTensorView,
                          ConstTensorView, TensorView, TensorView, TensorView, Stream&) override {
    add_gradient(5.0 * attention_product(shape));
  }
  void append_kv(const PagedKv&, std::span<const SequenceRows>, ConstTensorView, ConstTensorView,
                 Stream&) override {}
  void paged_attention(const AttentionShape& shape, const PagedKv&,
                       std::span<const SequenceRows> sequences, ConstTensorView, TensorView,
                       Stream&) override {
    double pairs = 0;
    for (const SequenceRows& sequence : sequences) {
      for (std::int64_t row = 0; row < sequence.rows; ++row) {
        const std::int64_t keys = sequence.position + row + 1;
        pairs += static_cast<double>(shape.window > 0 ? std::min(shape.window, keys) : keys);
      }
    }
    operations_ += 4.0 * pairs * static_cast<double>(shape.heads * shape.head_size);
  }
  void activation(Activation, ConstTensorView, TensorView, Stream&) override {}
  void activation_backward(Activation, ConstTensorView, ConstTensorView, TensorView,
                           Stream&) override {}
  void gated_activation(Activation, ConstTensorView, ConstTensorView, TensorView,
                        Stream&) override {}
  void gated_activation_backward(Activation, ConstTensorView, ConstTensorView, ConstTensorView,
                                 TensorView, TensorView, Stream&) override {}
  void add(ConstTensorView, ConstTensorView, TensorView, Stream&) override {}
  void convert(ConstTensorView, float, TensorView, Stream&) override {}
  void fill_zero(TensorView, Stream&) override {}
  void dropout(ConstTensorView, const Dropout&, TensorView, Stream&) override {}
  void softmax_statistics(ConstTensorView, std::int64_t, ConstTensorView, bool, TensorView,
                          TensorView, TensorView, Stream&) override {}
  void cross_entropy(ConstTensorView, ConstTensorView, ConstTensorView, ConstTensorView, TensorView,
                     Stream&) override {}
  void cross_entropy_backward(ConstTensorView, std::int64_t, ConstTensorView, ConstTensorView,
                              ConstTensorView, float, TensorView, Stream&) override {}
  void sum(ConstTensorView, double* result, Stream&) override { *result = 0; }

 private:
  void add_gradient(double operations) {
    operations_ += operations;
    gradient_operations_ += operations;
  }
  void product(ConstTensorView x, ConstTensorView w) {
    operations_ += 2.0 * static_cast<double>(x.numel()) * static_cast<double>(w.shape()[0]);
  }
  /// One of q k^T and p v under a causal mask: half of the square, and with a window less.
  static double attention_product(const AttentionShape& shape) {
    const auto tokens = static_cast<double>(shape.tokens);
    const double window =
        shape.window > 0 ? std::min(static_cast<double>(shape.window), tokens) : tokens;
    const double pairs = tokens * window - 0.5 * window * window;
    return 2.0 * pairs * static_cast<double>(shape.sequences * shape.heads * shape.head_size);
  }

  double operations_ = 0;
  double gradient_operations_ = 0;
};

}  // namespace strata
