#pragma once

#include <cstdint>

#include "core/paged_kv.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace strata {

// Letters of the shape comments:
//   T tokens of all sequences of a micro-batch (rows)    K, N features in and out
//   C channels   V vocabulary rows   B sequences   S tokens of one sequence (T = B S)
//   H query heads   G key/value heads   D head size
//
// "compute" is fp32, bf16 or fp16, the same for every operand so marked in one call; sums are fp32
// in any case.

enum class Activation : std::uint8_t { kGeluNew, kSilu, kRelu };

/// Which elements of a matrix dropout sets to zero. Element (row, column) is dropped where
/// random_word() of (key, first_row + row, column) is below rate * 2^32, so a mask is never stored:
/// it is the same whenever it is asked for, however rows are spread over calls, ranks and threads.
struct Dropout {
  float rate = 0.0f;           ///< [0, 1); 0: nothing is dropped
  std::uint64_t key = 0;       ///< of one use in one step (core/random.h)
  std::int64_t first_row = 0;  ///< number of the first row among all that share the key
};

/// What attention needs to know beside its tensors.
struct AttentionShape {
  std::int64_t sequences = 1;  ///< B
  std::int64_t tokens = 0;     ///< S, per sequence
  std::int64_t heads = 0;      ///< H
  std::int64_t kv_heads = 0;   ///< G; query head h reads key/value head h / (H / G)
  std::int64_t head_size = 0;  ///< D
  float scale = 1.0f;          ///< on the scores, usually D^-0.5
  std::int64_t window = 0;     ///< keys a query sees at most, the last one its own; 0: all
  /// Of the probabilities, a matrix of T H rows: row t H + h, column = key within its sequence.
  /// first_row counts tokens.
  Dropout dropout = {};
};

/// The operations a model is written in. Each enqueues on `stream` and returns; operands must stay
/// alive and unchanged until the work is done. An operand may be used for input and output only
/// where it says so. Gradients of parameters are fp32 and are added to what is there; all other
/// outputs are overwritten unless they say otherwise. Results of one backend do not depend on where
/// operands lie, and rows do not depend on each other except where a sum over them is the result.
///
/// Shapes are checked (expects); contents are not, apart from ids, which must lie in the table.
class Ops {
 public:
  virtual ~Ops() = default;

  // ---- products ----

  /// y[T,N] = x[T,K] w[N,K]^T + bias[N]. `bias` may be empty. x, w, bias compute; y compute or
  /// fp32. w may be quantised (K a multiple of 64): it is decoded on the way.
  virtual void linear(ConstTensorView x, ConstTensorView w, ConstTensorView bias, TensorView y,
                      Stream& stream) = 0;
  /// Weights w[N,K] of linear(), which will find them where they are: may bring them into another
  /// order, in place, that products of `compute` read faster and that gives the same bits. What is
  /// enqueued later uses them with the dtype that is returned, w's own where nothing is done, and
  /// for nothing but linear().
  virtual Dtype arrange(TensorView w, Dtype /*compute*/, Stream&) { return w.dtype(); }
  /// dx[T,K] = dy[T,N] w[N,K], or += with `accumulate`. dy, w compute; dx compute or fp32
  /// (accumulate: fp32).
  virtual void linear_backward_input(ConstTensorView dy, ConstTensorView w, TensorView dx,
                                     bool accumulate, Stream& stream) = 0;
  /// dw[N,K] += dy[T,N]^T x[T,K], dbias[N] += sum over T of dy. Either may be empty. dw, dbias
  /// fp32.
  virtual void linear_backward_weight(ConstTensorView dy, ConstTensorView x, TensorView dw,
                                      TensorView dbias, Stream& stream) = 0;

  // ---- lookups ----

  /// y[T,C] = table[ids[T], :], or += with `accumulate`. table, y compute; ids int32 in [0, V).
  /// The table may be quantised (C a multiple of 64).
  virtual void embedding(ConstTensorView ids, ConstTensorView table, TensorView y, bool accumulate,
                         Stream& stream) = 0;
  /// dtable[R,C] += for each token t, in order, with row_begin <= ids[t] < row_begin + R: dy[t, :]
  /// at row ids[t] - row_begin. dy compute, dtable fp32. A row tile of the table's gradient.
  virtual void embedding_backward(ConstTensorView ids, ConstTensorView dy, std::int64_t row_begin,
                                  TensorView dtable, Stream& stream) = 0;

  // ---- normalisation ----

  /// r = (mean(x^2) + eps)^-1/2 per row; y = w * round(x r), rounded to compute before and after
  /// the product with w (as transformers does). rstd[T] fp32 is kept for the gradient.
  virtual void rms_norm(ConstTensorView x, ConstTensorView w, float eps, TensorView y,
                        TensorView rstd, Stream& stream) = 0;
  /// dx[T,C] of rms_norm; dw[C] += . Sums over rows in a fixed order. dw may be empty (here and
  /// below: frozen).
  virtual void rms_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                                 ConstTensorView rstd, TensorView dx, TensorView dw,
                                 Stream& stream) = 0;
  /// y = (x - mean) rstd w + b per row, rstd = (var + eps)^-1/2 with the biased variance.
  /// mean[T], rstd[T] fp32 are kept for the gradient.
  virtual void layer_norm(ConstTensorView x, ConstTensorView w, ConstTensorView b, float eps,
                          TensorView y, TensorView mean, TensorView rstd, Stream& stream) = 0;
  virtual void layer_norm_backward(ConstTensorView dy, ConstTensorView x, ConstTensorView w,
                                   ConstTensorView mean, ConstTensorView rstd, TensorView dx,
                                   TensorView dw, TensorView db, Stream& stream) = 0;

  // ---- attention ----

  /// Rotary position embedding, rotate-half layout, in place on x[T, heads * D]: for i < D/2,
  /// (x_i, x_{i+D/2}) turns by the angle positions[t] * inverse_frequency[i] (computed in fp32; cos
  /// and sin are multiplied by `magnitude` and rounded to compute). inverse_frequency [D/2] fp32
  /// lies in host memory. `inverse` turns back: its gradient.
  virtual void rotary(TensorView x, std::int64_t head_size, ConstTensorView positions,
                      ConstTensorView inverse_frequency, float magnitude, bool inverse,
                      Stream& stream) = 0;

  /// y[T, H D] = softmax(scale q k^T) v per head, softmax in fp32. Query t of a sequence sees keys
  /// s of the same sequence with first_key[t] <= s <= t, where first_key[T] int32 counts within the
  /// sequence (empty: 0), and with a window also t - window < s: causal attention, packed documents
  /// and sliding windows. With dropout, v is multiplied by what dropout() leaves of the softmax.
  /// q[T, H D], k, v[T, G D] compute. log_sum[T, H] fp32 is kept for the gradient. A query that
  /// sees no key gives zeros.
  virtual void attention(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                         ConstTensorView v, ConstTensorView first_key, TensorView y,
                         TensorView log_sum, Stream& stream) = 0;
  virtual void attention_backward(const AttentionShape& shape, ConstTensorView dy,
                                  ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                  ConstTensorView first_key, ConstTensorView y,
                                  ConstTensorView log_sum, TensorView dq, TensorView dk,
                                  TensorView dv, Stream& stream) = 0;

  /// Keys and values of the rows' tokens go into their pages. k, v[T, G D] compute; pages of one
  /// token are written by one row. `sequences` and their page lists stay alive until the work is
  /// done.
  virtual void append_kv(const PagedKv& kv, std::span<const SequenceRows> sequences,
                         ConstTensorView k, ConstTensorView v, Stream& stream) = 0;
  /// attention() for rows whose keys and values, their own included, lie in pages: y[T, H D] of
  /// q[T, H D]. Rows of no sequence are left alone. What a row gets does not depend on the others,
  /// to the bit. `shape.sequences` and `shape.tokens` do not matter.
  virtual void paged_attention(const AttentionShape& shape, const PagedKv& kv,
                               std::span<const SequenceRows> sequences, ConstTensorView q,
                               TensorView y, Stream& stream) = 0;

  // ---- elementwise ----

  /// y = f(x). x and y may be the same memory.
  virtual void activation(Activation f, ConstTensorView x, TensorView y, Stream& stream) = 0;
  /// dx = dy f'(x). dx may be dy or x.
  virtual void activation_backward(Activation f, ConstTensorView dy, ConstTensorView x,
                                   TensorView dx, Stream& stream) = 0;
  /// y = f(gate) * up. y may be gate or up.
  virtual void gated_activation(Activation f, ConstTensorView gate, ConstTensorView up,
                                TensorView y, Stream& stream) = 0;
  /// dgate = dy up f'(gate), dup = dy f(gate). dgate may be gate, dup may be up.
  virtual void gated_activation_backward(Activation f, ConstTensorView dy, ConstTensorView gate,
                                         ConstTensorView up, TensorView dgate, TensorView dup,
                                         Stream& stream) = 0;
  /// y = a + b, computed in fp32. y may be a or b.
  virtual void add(ConstTensorView a, ConstTensorView b, TensorView y, Stream& stream) = 0;
  /// y = scale * x; converts between fp32, bf16 and fp16 (nearest, ties to even). x and y may be
  /// the same memory when their dtypes are equal.
  virtual void convert(ConstTensorView x, float scale, TensorView y, Stream& stream) = 0;
  virtual void fill_zero(TensorView y, Stream& stream) = 0;
  /// y[T, C] = x / (1 - rate) where `dropout` keeps the element, else 0; its gradient is the same
  /// of dy. x and y may be the same memory.
  virtual void dropout(ConstTensorView x, const Dropout& dropout, TensorView y, Stream& stream) = 0;

  // ---- cross-entropy, one tile of the vocabulary at a time ----

  /// Takes logits[T, R] (compute or fp32) of vocabulary rows [row_begin, row_begin + R) into the
  /// running softmax statistics: maximum[T], sum[T] of exp(logit - maximum), and label_logit[T] of
  /// the row's label if it lies in this tile. fp32, labels[T] int32, -100 (or any negative) = not
  /// counted. Start with reset = true for the first tile.
  virtual void softmax_statistics(ConstTensorView logits, std::int64_t row_begin,
                                  ConstTensorView labels, bool reset, TensorView maximum,
                                  TensorView sum, TensorView label_logit, Stream& stream) = 0;
  /// loss[T] = maximum + log(sum) - label_logit where the label counts, else 0. fp32.
  virtual void cross_entropy(ConstTensorView maximum, ConstTensorView sum,
                             ConstTensorView label_logit, ConstTensorView labels, TensorView loss,
                             Stream& stream) = 0;
  /// dlogits[T,R] = scale * (softmax - onehot(label)) where the label counts, else 0. dlogits
  /// compute; it may be the memory of logits when their dtypes are equal.
  virtual void cross_entropy_backward(ConstTensorView logits, std::int64_t row_begin,
                                      ConstTensorView labels, ConstTensorView maximum,
                                      ConstTensorView sum, float scale, TensorView dlogits,
                                      Stream& stream) = 0;
  /// Sum of all elements of x (fp32), in double, in a fixed order, written to *result when the work
  /// runs.
  virtual void sum(ConstTensorView x, double* result, Stream& stream) = 0;
};

}  // namespace strata
