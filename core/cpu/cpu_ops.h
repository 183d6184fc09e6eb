#pragma once

#include <cstdint>
#include <mutex>

#include "core/cpu/byte_product.h"
#include "core/cpu/matmul.h"
#include "core/cpu/panel_product.h"
#include "core/cpu/row_product.h"
#include "core/cpu/scratch.h"
#include "core/ops.h"

namespace strata::cpu {

/// Ops on host memory. Each method checks its shapes when it is called and computes when the stream
/// runs it, with an OpenMP team of `threads` threads. Rows are spread over the team in blocks; sums
/// over rows are taken in an order that depends on shapes only, so results repeat bit for bit.
///
/// Several streams may run operations at once; products and attentions among them take
/// turns. Scratch memory grows to what the largest operation so far needed: a few tiles per thread
/// for attention, plus two fp32 copies of one key/value head per thread for its gradient.
class CpuOps final : public Ops {
 public:
  /// With `batch_invariant`, linear() gives a row the same bits whatever the number of rows: all
  /// its products go the way of few rows (core/cpu/row_product.h, byte_product.h), which costs
  /// speed where rows are many and weights plain.
  /// @pre threads > 0
  explicit CpuOps(int threads, bool batch_invariant = false)
      : threads_(threads), batch_invariant_(batch_invariant) {}

  void linear(ConstTensorView x, ConstTensorView w, ConstTensorView bias, TensorView y,
              Stream& stream) override;
  Dtype arrange(TensorView w, Dtype compute, Stream& stream) override;
  void linear_backward_input(ConstTensorView dy, ConstTensorView w, TensorView dx, bool accumulate,
                             Stream& stream) override;
  void linear_backward_weight(ConstTensorView dy, ConstTensorView x, TensorView dw,
                              TensorView dbias, Stream& stream) override;

  void embedding(ConstTensorView ids, ConstTensorView table, TensorView y, bool accumulate,
                 Stream& stream) override;
  void embedding_backward(ConstTensorView ids, ConstTensorView dy, std::int64_t row_begin,
                          TensorView dtable, Stream& stream) override;

  void rms_norm(ConstTensorView x, ConstTensorView w, float eps, TensorView y, TensorView rstd,
                Stream& stream) override;
  void rms_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                         ConstTensorView rstd, TensorView dx, TensorView dw,
                         Stream& stream) override;
  void layer_norm(ConstTensorView x, ConstTensorView w, ConstTensorView b, float eps, TensorView y,
                  TensorView mean, TensorView rstd, Stream& stream) override;
  void layer_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                           ConstTensorView mean, ConstTensorView rstd, TensorView dx, TensorView dw,
                           TensorView db, Stream& stream) override;

  void rotary(TensorView x, std::int64_t head_size, ConstTensorView positions,
              ConstTensorView inverse_frequency, float magnitude, bool inverse,
              Stream& stream) override;
  void attention(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                 ConstTensorView v, ConstTensorView first_key, TensorView y, TensorView log_sum,
                 Stream& stream) override;
  void attention_backward(const AttentionShape& shape, ConstTensorView dy, ConstTensorView q,
                          ConstTensorView k, ConstTensorView v, ConstTensorView first_key,
                          ConstTensorView y, ConstTensorView log_sum, TensorView dq, TensorView dk,
                          TensorView dv, Stream& stream) override;
  void append_kv(const PagedKv& kv, std::span<const SequenceRows> sequences, ConstTensorView k,
                 ConstTensorView v, Stream& stream) override;
  void paged_attention(const AttentionShape& shape, const PagedKv& kv,
                       std::span<const SequenceRows> sequences, ConstTensorView q, TensorView y,
                       Stream& stream) override;

  void activation(Activation f, ConstTensorView x, TensorView y, Stream& stream) override;
  void activation_backward(Activation f, ConstTensorView dy, ConstTensorView x, TensorView dx,
                           Stream& stream) override;
  void gated_activation(Activation f, ConstTensorView gate, ConstTensorView up, TensorView y,
                        Stream& stream) override;
  void gated_activation_backward(Activation f, ConstTensorView dy, ConstTensorView gate,
                                 ConstTensorView up, TensorView dgate, TensorView dup,
                                 Stream& stream) override;
  void add(ConstTensorView a, ConstTensorView b, TensorView y, Stream& stream) override;
  void convert(ConstTensorView x, float scale, TensorView y, Stream& stream) override;
  void fill_zero(TensorView y, Stream& stream) override;
  void dropout(ConstTensorView x, const Dropout& dropout, TensorView y, Stream& stream) override;

  void softmax_statistics(ConstTensorView logits, std::int64_t row_begin, ConstTensorView labels,
                          bool reset, TensorView maximum, TensorView sum, TensorView label_logit,
                          Stream& stream) override;
  void cross_entropy(ConstTensorView maximum, ConstTensorView sum, ConstTensorView label_logit,
                     ConstTensorView labels, TensorView loss, Stream& stream) override;
  void cross_entropy_backward(ConstTensorView logits, std::int64_t row_begin,
                              ConstTensorView labels, ConstTensorView maximum, ConstTensorView sum,
                              float scale, TensorView dlogits, Stream& stream) override;
  void sum(ConstTensorView x, double* result, Stream& stream) override;

 private:
  void add_weight_gradient(ConstTensorView dy, ConstTensorView x, TensorView dw);

  int threads_;
  bool batch_invariant_;
  Matmul matmul_;
  RowProduct row_product_;
  ByteProduct byte_product_;
  PanelProduct panel_product_;
  std::mutex attention_mutex_;
  Scratch attention_scratch_;  // guarded by attention_mutex_
};

}  // namespace strata::cpu
