// Each operation: compute the output, and note its gradient if anything wants one.
#include <utility>

#include "core/model/graph.h"
#include "core/random.h"

namespace strata {
namespace {

ConstTensorView weight_or_empty(const ParameterTable& parameters, Parameter parameter) {
  return parameter == nullptr ? ConstTensorView() : parameters.weight(parameter);
}

TensorView gradient_or_empty(const ParameterTable& parameters, Parameter parameter) {
  return parameter == nullptr ? TensorView() : parameters.gradient(parameter);
}

}  // namespace

Value Graph::linear(const Value& x, Parameter weight, Parameter bias) {
  const ConstTensorView w = parameters_.weight(weight);
  Value y = allocate(compute_, {x.shape()[0], w.shape()[0]});
  ops_.linear(x.view(), w, weight_or_empty(parameters_, bias), y.view(), stream_);
  const bool trains_weight = trainable(weight);
  const bool trains = trainable(bias) || trains_weight;
  if (!recording_ || !(trains || x.slot_)) return y;
  // Only the gradient of the weight needs what x holds: otherwise its memory may go.
  const Value input = trains_weight ? x : Value(x.view_, nullptr, x.slot_);
  return record(std::move(y), [this, input, w, weight, bias, trains](const Value& dy) {
    if (trains) {
      ops_.linear_backward_weight(dy.view(), input.view(), gradient_or_empty(parameters_, weight),
                                  gradient_or_empty(parameters_, bias), stream_);
    }
    contribute(input, [&](TensorView dx) {
      ops_.linear_backward_input(dy.view(), w, dx, false, stream_);
    });
  });
}

Value Graph::embedding(ConstTensorView ids, Parameter table) {
  const ConstTensorView rows = parameters_.weight(table);
  Value y = allocate(compute_, {ids.numel(), rows.shape()[1]});
  ops_.embedding(ids, rows, y.view(), false, stream_);
  if (!trainable(table)) return y;
  return record(std::move(y), [this, ids, table](const Value& dy) {
    ops_.embedding_backward(ids, dy.view(), 0, parameters_.gradient(table), stream_);
  });
}

Value Graph::add_embedding(Value x, ConstTensorView ids, Parameter table, std::int64_t first_row) {
  const ConstTensorView rows = parameters_.weight(table);
  ops_.embedding(ids, rows.rows(first_row, rows.shape()[0] - first_row), x.view(), true, stream_);
  if (!recording_ || !(trainable(table) || x.slot_)) return x;
  const Value before = x;
  return record(std::move(x), [this, before, ids, table, first_row](const Value& dy) {
    if (trainable(table)) {
      ops_.embedding_backward(ids, dy.view(), -first_row, parameters_.gradient(table), stream_);
    }
    contribute(before, dy);
  });
}

Value Graph::rms_norm(const Value& x, Parameter weight, float epsilon) {
  const ConstTensorView w = parameters_.weight(weight);
  const Shape groups{x.shape().numel() / w.numel(), w.numel()};
  Value y = allocate(compute_, x.shape());
  const Value rstd = allocate(Dtype::kF32, {groups[0]});
  ops_.rms_norm(x.view().reshape(groups), w, epsilon, y.view().reshape(groups), rstd.view(),
                stream_);
  if (!recording_ || !(trainable(weight) || x.slot_)) return y;
  return record(std::move(y), [this, x, w, weight, groups, rstd](const Value& dy) {
    Value dx = allocate(compute_, x.shape());
    ops_.rms_norm_backward(dy.view().reshape(groups), x.view().reshape(groups), w, rstd.view(),
                           dx.view().reshape(groups), parameters_.gradient(weight), stream_);
    contribute(x, std::move(dx));
  });
}

Value Graph::layer_norm(const Value& x, Parameter weight, Parameter bias, float epsilon) {
  const ConstTensorView w = parameters_.weight(weight);
  Value y = allocate(compute_, x.shape());
  const Value mean = allocate(Dtype::kF32, {x.shape()[0]});
  const Value rstd = allocate(Dtype::kF32, {x.shape()[0]});
  ops_.layer_norm(x.view(), w, parameters_.weight(bias), epsilon, y.view(), mean.view(),
                  rstd.view(), stream_);
  if (!recording_ || !(trainable(weight) || trainable(bias) || x.slot_)) return y;
  return record(std::move(y), [this, x, w, weight, bias, mean, rstd](const Value& dy) {
    Value dx = allocate(compute_, x.shape());
    ops_.layer_norm_backward(dy.view(), x.view(), w, mean.view(), rstd.view(), dx.view(),
                             parameters_.gradient(weight), parameters_.gradient(bias), stream_);
    contribute(x, std::move(dx));
  });
}

Value Graph::rotary(Value x, std::int64_t head_size, ConstTensorView positions,
                    ConstTensorView inverse_frequency, float magnitude) {
  ops_.rotary(x.view(), head_size, positions, inverse_frequency, magnitude, false, stream_);
  if (!x.slot_) return x;
  const Value before(x.view_, nullptr, x.slot_);
  return record(std::move(x), [this, before, head_size, positions, inverse_frequency,
                               magnitude](const Value& dy) {
    Value dx = dy;
    if (dy.memory_.use_count() != 2) {  // someone beside us still reads it
      dx = allocate(compute_, dy.shape());
      ops_.convert(dy.view(), 1.0f, dx.view(), stream_);
    }
    ops_.rotary(dx.view(), head_size, positions, inverse_frequency, magnitude, true, stream_);
    contribute(before, std::move(dx));
  });
}

Value Graph::attention(const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
                       ConstTensorView first_key) {
  if (pages_ != nullptr) return attention_over_pages(shape, q, k, v);
  Value y = allocate(compute_, q.shape());
  const Value log_sum = allocate(Dtype::kF32, {q.shape()[0], shape.heads});
  ops_.attention(shape, q.view(), k.view(), v.view(), first_key, y.view(), log_sum.view(), stream_);
  if (!recording_ || !(q.slot_ || k.slot_ || v.slot_)) return y;
  const Value output(y.view_, y.memory_, nullptr);
  return record(std::move(y), [=, this](const Value& dy) {
    Value dq = allocate(compute_, q.shape());
    Value dk = allocate(compute_, k.shape());
    Value dv = allocate(compute_, v.shape());
    ops_.attention_backward(shape, dy.view(), q.view(), k.view(), v.view(), first_key,
                            output.view(), log_sum.view(), dq.view(), dk.view(), dv.view(),
                            stream_);
    contribute(q, std::move(dq));
    contribute(k, std::move(dk));
    contribute(v, std::move(dv));
  });
}

Value Graph::attention_over_pages(const AttentionShape& shape, const Value& q, const Value& k,
                                  const Value& v) {
  Value y = allocate(compute_, q.shape());
  ops_.append_kv(*pages_, sequences_, k.view(), v.view(), stream_);
  ops_.paged_attention(shape, *pages_, sequences_, q.view(), y.view(), stream_);
  return y;
}

Value Graph::activation(Activation f, const Value& x) {
  Value y = allocate(compute_, x.shape());
  ops_.activation(f, x.view(), y.view(), stream_);
  if (!x.slot_) return y;
  return record(std::move(y), [this, f, x](const Value& dy) {
    contribute(
        x, [&](TensorView dx) { ops_.activation_backward(f, dy.view(), x.view(), dx, stream_); });
  });
}

Value Graph::gated_activation(Activation f, const Value& gate, const Value& up) {
  Value y = allocate(compute_, gate.shape());
  ops_.gated_activation(f, gate.view(), up.view(), y.view(), stream_);
  if (!gate.slot_ && !up.slot_) return y;
  return record(std::move(y), [this, f, gate, up](const Value& dy) {
    Value dgate = allocate(compute_, gate.shape());
    Value dup = allocate(compute_, up.shape());
    ops_.gated_activation_backward(f, dy.view(), gate.view(), up.view(), dgate.view(), dup.view(),
                                   stream_);
    contribute(gate, std::move(dgate));
    contribute(up, std::move(dup));
  });
}

Value Graph::add(const Value& a, const Value& b) {
  Value y = allocate(compute_, a.shape());
  ops_.add(a.view(), b.view(), y.view(), stream_);
  if (!a.slot_ && !b.slot_) return y;
  return record(std::move(y), [this, a = Value(a.view_, nullptr, a.slot_),
                               b = Value(b.view_, nullptr, b.slot_)](const Value& dy) {
    contribute(a, dy);
    contribute(b, dy);
  });
}

Value Graph::dropout(Value x, const Dropout& dropout) {
  if (dropout.rate == 0.0f) return x;
  ops_.dropout(x.view(), dropout, x.view(), stream_);
  if (!x.slot_) return x;
  const Value before(x.view_, nullptr, x.slot_);
  return record(std::move(x), [this, before, dropout](const Value& dy) {
    contribute(before, [&](TensorView dx) { ops_.dropout(dy.view(), dropout, dx, stream_); });
  });
}

Dropout Graph::make_dropout(float rate, std::uint64_t use, std::int64_t first_row) const {
  if (!randomness_ || rate == 0.0f) return {};
  return {.rate = rate, .key = random_key(*randomness_, {use}), .first_row = first_row};
}

Value Graph::cross_entropy(const Value& logits, ConstTensorView labels) {
  const std::int64_t tokens = logits.shape()[0];
  const Value maximum = allocate(Dtype::kF32, {tokens});
  const Value sum = allocate(Dtype::kF32, {tokens});
  const Value label_logit = allocate(Dtype::kF32, {tokens});
  Value loss = allocate(Dtype::kF32, {tokens});
  ops_.softmax_statistics(logits.view(), 0, labels, true, maximum.view(), sum.view(),
                          label_logit.view(), stream_);
  ops_.cross_entropy(maximum.view(), sum.view(), label_logit.view(), labels, loss.view(), stream_);
  if (!logits.slot_) return loss;
  return record(std::move(loss), [this, logits, labels, maximum, sum](const Value&) {
    contribute(logits, [&](TensorView dlogits) {
      ops_.cross_entropy_backward(logits.view(), 0, labels, maximum.view(), sum.view(), loss_scale_,
                                  dlogits, stream_);
    });
  });
}

}  // namespace strata
