#include "tests/support/separate_ops.h"

#include "tests/support/separate_device.h"

namespace strata::test {
namespace {

class SeparateOps final : public Ops {
 public:
  SeparateOps(Ops& real, const SeparateDevice& device) : real_(real), device_(device) {}

  void linear(ConstTensorView x, ConstTensorView w, ConstTensorView bias, TensorView y,
              Stream& stream) override {
    real_.linear(at(x), at(w), at(bias), at(y), stream);
  }
  void linear_backward_input(ConstTensorView dy, ConstTensorView w, TensorView dx, bool accumulate,
                             Stream& stream) override {
    real_.linear_backward_input(at(dy), at(w), at(dx), accumulate, stream);
  }
  void linear_backward_weight(ConstTensorView dy, ConstTensorView x, TensorView dw,
                              TensorView dbias, Stream& stream) override {
    real_.linear_backward_weight(at(dy), at(x), at(dw), at(dbias), stream);
  }
  void embedding(ConstTensorView ids, ConstTensorView table, TensorView y, bool accumulate,
                 Stream& stream) override {
    real_.embedding(at(ids), at(table), at(y), accumulate, stream);
  }
  void embedding_backward(ConstTensorView ids, ConstTensorView dy, std::int64_t row_begin,
                          TensorView dtable, Stream& stream) override {
    real_.embedding_backward(at(ids), at(dy), row_begin, at(dtable), stream);
  }
  void rms_norm(ConstTensorView x, ConstTensorView w, float eps, TensorView y, TensorView rstd,
                Stream& stream) override {
    real_.rms_norm(at(x), at(w), eps, at(y), at(rstd), stream);
  }
  void rms_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                         ConstTensorView rstd, TensorView dx, TensorView dw,
                         Stream& stream) override {
    real_.rms_norm_backward(at(dy), at(x), at(w), at(rstd), at(dx), at(dw), stream);
  }
  void layer_norm(ConstTensorView x, ConstTensorView w, ConstTensorView b, float eps, TensorView y,
                  TensorView mean, TensorView rstd, Stream& stream) override {
    real_.layer_norm(at(x), at(w), at(b), eps, at(y), at(mean), at(rstd), stream);
  }
  void layer_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                           ConstTensorView mean, ConstTensorView rstd, TensorView dx, TensorView dw,
                           TensorView db, Stream& stream) override {
    real_.layer_norm_backward(at(dy), at(x), at(w), at(mean), at(rstd), at(dx), at(dw), at(db),
                              stream);
  }
  void rotary(TensorView x, std::int64_t head_size, ConstTensorView positions,
              ConstTensorView inverse_frequency, float magnitude, bool inverse,
              Stream& stream) override {
    real_.rotary(at(x), head_size, at(positions), inverse_frequency, magnitude, inverse, stream);
  }
  void attention(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                 ConstTensorView v, ConstTensorView first_key, TensorView y, TensorView log_sum,
                 Stream& stream) override {
    real_.attention(shape, at(q), at(k), at(v), at(first_key), at(y), at(log_sum), stream);
  }
  void attention_backward(const AttentionShape& shape, ConstTensorView dy, ConstTensorView q,
                          ConstTensorView k, ConstTensorView v, ConstTensorView first_key,
                          ConstTensorView y, ConstTensorView log_sum, TensorView dq, TensorView dk,
                          TensorView dv, Stream& stream) override {
    real_.attention_backward(shape, at(dy), at(q), at(k), at(v), at(first_key), at(y), at(log_sum),
                             at(dq), at(dk), at(dv), stream);
  }
  void append_kv(const PagedKv& kv, std::span<const SequenceRows> sequences, ConstTensorView k,
                 ConstTensorView v, Stream& stream) override {
    real_.append_kv(kv, sequences, at(k), at(v), stream);  // pages lie in host memory
  }
  void paged_attention(const AttentionShape& shape, const PagedKv& kv,
                       std::span<const SequenceRows> sequences, ConstTensorView q, TensorView y,
                       Stream& stream) override {
    real_.paged_attention(shape, kv, sequences, at(q), at(y), stream);
  }
  void activation(Activation f, ConstTensorView x, TensorView y, Stream& stream) override {
    real_.activation(f, at(x), at(y), stream);
  }
  void activation_backward(Activation f, ConstTensorView dy, ConstTensorView x, TensorView dx,
                           Stream& stream) override {
    real_.activation_backward(f, at(dy), at(x), at(dx), stream);
  }
  void gated_activation(Activation f, ConstTensorView gate, ConstTensorView up, TensorView y,
                        Stream& stream) override {
    real_.gated_activation(f, at(gate), at(up), at(y), stream);
  }
  void gated_activation_backward(Activation f, ConstTensorView dy, ConstTensorView gate,
                                 ConstTensorView up, TensorView dgate, TensorView dup,
                                 Stream& stream) override {
    real_.gated_activation_backward(f, at(dy), at(gate), at(up), at(dgate), at(dup), stream);
  }
  void add(ConstTensorView a, ConstTensorView b, TensorView y, Stream& stream) override {
    real_.add(at(a), at(b), at(y), stream);
  }
  void convert(ConstTensorView x, float scale, TensorView y, Stream& stream) override {
    real_.convert(at(x), scale, at(y), stream);
  }
  void fill_zero(TensorView y, Stream& stream) override { real_.fill_zero(at(y), stream); }
  void dropout(ConstTensorView x, const Dropout& dropout, TensorView y, Stream& stream) override {
    real_.dropout(at(x), dropout, at(y), stream);
  }
  void softmax_statistics(ConstTensorView logits, std::int64_t row_begin, ConstTensorView labels,
                          bool reset, TensorView maximum, TensorView sum, TensorView label_logit,
                          Stream& stream) override {
    real_.softmax_statistics(at(logits), row_begin, at(labels), reset, at(maximum), at(sum),
                             at(label_logit), stream);
  }
  void cross_entropy(ConstTensorView maximum, ConstTensorView sum, ConstTensorView label_logit,
                     ConstTensorView labels, TensorView loss, Stream& stream) override {
    real_.cross_entropy(at(maximum), at(sum), at(label_logit), at(labels), at(loss), stream);
  }
  void cross_entropy_backward(ConstTensorView logits, std::int64_t row_begin,
                              ConstTensorView labels, ConstTensorView maximum, ConstTensorView sum,
                              float scale, TensorView dlogits, Stream& stream) override {
    real_.cross_entropy_backward(at(logits), row_begin, at(labels), at(maximum), at(sum), scale,
                                 at(dlogits), stream);
  }
  void sum(ConstTensorView x, double* result, Stream& stream) override {
    real_.sum(at(x), result, stream);
  }

 private:
  ConstTensorView at(ConstTensorView view) const { return device_.bytes_of(view); }
  TensorView at(TensorView view) const { return device_.bytes_of(view); }

  Ops& real_;
  const SeparateDevice& device_;
};

}  // namespace

std::unique_ptr<Ops> make_separate_ops(Ops& real, const SeparateDevice& device) {
  return std::make_unique<SeparateOps>(real, device);
}

}  // namespace strata::test
