#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cpu/attention_tiles.h"
#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/dropout.h"
#include "core/cpu/team.h"
#include "core/cpu/tile_product.h"
#include "core/units.h"

// Attention in tiles of kTile queries and kTile keys (attention_tiles.h). Memory is a few tiles per
// thread, plus dk and dv of one key/value head in fp32 per thread for the gradient; nothing of size
// S x S exists. Tiles that no query of a tile sees are not computed.

namespace strata::cpu {
namespace {

template <typename T>
struct Operands {
  AttentionShape shape;
  const T* q;
  const T* k;
  const T* v;
  const std::int32_t* first_key;  ///< nullptr: 0 everywhere

  std::int64_t query_stride() const { return shape.heads * shape.head_size; }
  std::int64_t key_stride() const { return shape.kv_heads * shape.head_size; }
  /// Where head `head` of token `token` of a sequence starts among the queries.
  std::int64_t query_offset(std::int64_t sequence, std::int64_t token, std::int64_t head) const {
    return (sequence * shape.tokens + token) * query_stride() + head * shape.head_size;
  }
  std::int64_t key_offset(std::int64_t sequence, std::int64_t token, std::int64_t head) const {
    return (sequence * shape.tokens + token) * key_stride() + head * shape.head_size;
  }
  std::int64_t kv_head(std::int64_t head) const { return head / (shape.heads / shape.kv_heads); }
  bool drops() const { return shape.dropout.rate > 0.0f; }
  DropoutLanes lanes(std::int64_t sequence, std::int64_t query, std::int64_t head) const {
    return dropout_lanes(shape, sequence * shape.tokens + query, head);
  }
  QueryRange range(std::int64_t sequence, std::int64_t query) const {
    const std::int32_t* first =
        first_key != nullptr ? first_key + sequence * shape.tokens : nullptr;
    return query_range(first, shape.window, query, std::min(kTile, shape.tokens - query));
  }
};

/// Cuts one thread's part of the scratch memory into tiles.
class TileAllocator {
 public:
  explicit TileAllocator(float* memory) : next_(memory) {}
  float* take(std::int64_t floats) {
    float* tile = next_;
    next_ += floats;
    return tile;
  }

 private:
  float* next_;
};

std::int64_t forward_floats(std::int64_t padded) { return 4 * padded * kTile + kTile * kTile; }
std::int64_t backward_floats(std::int64_t padded, std::int64_t tokens) {
  const std::int64_t rounded = round_up(tokens, kTile);
  return 7 * padded * kTile + 2 * kTile * kTile + 2 * rounded * padded;
}

template <typename T>
class ForwardTile {
 public:
  ForwardTile(const Operands<T>& in, float* memory)
      : in_(in), padded_(padded_head_size(in.shape.head_size)) {
    TileAllocator tiles(memory);
    rows_ = tiles.take(padded_ * kTile);
    query_ = tiles.take(padded_ * kTile);
    value_ = tiles.take(padded_ * kTile);
    output_ = tiles.take(padded_ * kTile);
    scores_ = tiles.take(kTile * kTile);
  }

  void run(std::int64_t sequence, std::int64_t head, std::int64_t query, T* y, float* log_sum) {
    const AttentionShape& shape = in_.shape;
    const std::int64_t queries = std::min(kTile, shape.tokens - query);
    const std::int64_t offset = in_.query_offset(sequence, query, head);
    load_rows(in_.q + offset, in_.query_stride(), queries, shape.head_size, rows_);
    transpose_to_lanes(rows_, padded_, shape.scale, query_);
    std::fill_n(output_, padded_ * kTile, 0.0f);
    RunningSoftmax softmax = empty_softmax();
    if (in_.drops()) lanes_ = in_.lanes(sequence, query, head);
    const QueryRange range = in_.range(sequence, query);
    for (std::int64_t key = range.begin / kTile * kTile; key < range.end; key += kTile) {
      take_keys(sequence, in_.kv_head(head), key, range, softmax);
    }
    finish(softmax, queries, y + offset,
           log_sum + (sequence * shape.tokens + query) * shape.heads + head);
  }

 private:
  void take_keys(std::int64_t sequence, std::int64_t kv_head, std::int64_t key,
                 const QueryRange& range, RunningSoftmax& softmax) {
    const AttentionShape& shape = in_.shape;
    const std::int64_t keys = std::min(kTile, shape.tokens - key);
    const std::int64_t offset = in_.key_offset(sequence, key, kv_head);
    load_rows(in_.k + offset, in_.key_stride(), keys, shape.head_size, rows_);
    load_rows(in_.v + offset, in_.key_stride(), keys, shape.head_size, value_);
    std::fill_n(scores_, kTile * kTile, 0.0f);
    add_tile_product({rows_, padded_, 1}, query_, scores_, kTile, kTile, padded_);
    if (!sees_all(range, key)) mask_scores(range, key, scores_);
    take_scores(scores_, softmax, output_, padded_);
    if (in_.drops()) drop_scores(lanes_, key, scores_);
    add_tile_product({value_, 1, padded_}, scores_, output_, padded_, kTile, kTile);
  }

  void finish(const RunningSoftmax& softmax, std::int64_t queries, T* y, float* log_sum) {
    float factor[kTile];
    const float kept = in_.drops() ? lanes_.kept : 1.0f;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const bool seen = softmax.sum[lane] != 0.0f;  // also NaN, which must not get lost
      factor[lane] = seen ? kept / softmax.sum[lane] : 0.0f;
      if (lane >= queries) continue;
      log_sum[lane * in_.shape.heads] = seen ? softmax.maximum[lane] + std::log(softmax.sum[lane])
                                             : -std::numeric_limits<float>::infinity();
    }
    store_lanes(output_, factor, queries, in_.shape.head_size, y, in_.query_stride());
  }

  const Operands<T>& in_;
  std::int64_t padded_;
  float* rows_;         // [kTile, P]: queries, then keys
  float* query_;        // [P, kTile], scaled
  float* value_;        // [kTile, P]
  float* output_;       // [P, kTile]
  float* scores_;       // [kTile keys, kTile queries]
  DropoutLanes lanes_;  // of the query tile, where there is dropout
};

/// Gradients of one key/value head and of the query heads that read it.
template <typename T>
class BackwardHead {
 public:
  struct Tensors {
    const T* dy;
    const T* y;
    const float* log_sum;
    T* dq;
    T* dk;
    T* dv;
  };

  BackwardHead(const Operands<T>& in, const Tensors& tensors, float* memory)
      : in_(in), tensors_(tensors), padded_(padded_head_size(in.shape.head_size)) {
    TileAllocator tiles(memory);
    for (float** tile : {&query_rows_, &query_, &dy_rows_, &dy_, &key_, &value_, &dq_}) {
      *tile = tiles.take(padded_ * kTile);
    }
    scores_ = tiles.take(kTile * kTile);
    gradient_ = tiles.take(kTile * kTile);
    const std::int64_t rounded = round_up(in.shape.tokens, kTile);
    dk_ = tiles.take(rounded * padded_);
    dv_ = tiles.take(rounded * padded_);
  }

  void run(std::int64_t sequence, std::int64_t kv_head) {
    const AttentionShape& shape = in_.shape;
    const std::int64_t rounded = round_up(shape.tokens, kTile);
    std::fill_n(dk_, rounded * padded_, 0.0f);
    std::fill_n(dv_, rounded * padded_, 0.0f);
    const std::int64_t group = shape.heads / shape.kv_heads;
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t query = 0; query < shape.tokens; query += kTile) {
        take_queries(sequence, head, query);
      }
    }
    const std::int64_t offset = in_.key_offset(sequence, 0, kv_head);
    store_rows(dk_, shape.tokens, shape.head_size, tensors_.dk + offset, in_.key_stride());
    store_rows(dv_, shape.tokens, shape.head_size, tensors_.dv + offset, in_.key_stride());
  }

 private:
  void take_queries(std::int64_t sequence, std::int64_t head, std::int64_t query) {
    const AttentionShape& shape = in_.shape;
    const std::int64_t queries = std::min(kTile, shape.tokens - query);
    const std::int64_t offset = in_.query_offset(sequence, query, head);
    load_rows(tensors_.y + offset, in_.query_stride(), queries, shape.head_size, dy_);
    load_rows(tensors_.dy + offset, in_.query_stride(), queries, shape.head_size, dy_rows_);
    prepare_statistics(sequence, head, query, queries);
    load_rows(in_.q + offset, in_.query_stride(), queries, shape.head_size, query_rows_);
    transpose_to_lanes(query_rows_, padded_, shape.scale, query_);
    transpose_to_lanes(dy_rows_, padded_, 1.0f, dy_);
    std::fill_n(dq_, padded_ * kTile, 0.0f);
    if (in_.drops()) lanes_ = in_.lanes(sequence, query, head);
    const QueryRange range = in_.range(sequence, query);
    for (std::int64_t key = range.begin / kTile * kTile; key < range.end; key += kTile) {
      take_keys(sequence, in_.kv_head(head), key, range);
    }
    float one[kTile];
    std::ranges::fill(one, 1.0f);
    store_lanes(dq_, one, queries, shape.head_size, tensors_.dq + offset, in_.query_stride());
  }

  /// delta = sum(dy y) per query; expects y in dy_ and dy in dy_rows_. Lanes outside get zeros.
  void prepare_statistics(std::int64_t sequence, std::int64_t head, std::int64_t query,
                          std::int64_t queries) {
    const AttentionShape& shape = in_.shape;
    row_products(dy_rows_, dy_, padded_, delta_);
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const std::int64_t token = sequence * shape.tokens + query + lane;
      const float kept = lane < queries ? tensors_.log_sum[token * shape.heads + head] : 0.0f;
      log_sum_[lane] = std::isinf(kept) ? 0.0f : kept;  // saw no key: all its scores are masked
    }
  }

  void take_keys(std::int64_t sequence, std::int64_t kv_head, std::int64_t key,
                 const QueryRange& range) {
    const AttentionShape& shape = in_.shape;
    const std::int64_t keys = std::min(kTile, shape.tokens - key);
    const std::int64_t offset = in_.key_offset(sequence, key, kv_head);
    load_rows(in_.k + offset, in_.key_stride(), keys, shape.head_size, key_);
    load_rows(in_.v + offset, in_.key_stride(), keys, shape.head_size, value_);
    std::fill_n(scores_, kTile * kTile, 0.0f);
    std::fill_n(gradient_, kTile * kTile, 0.0f);
    add_tile_product({key_, padded_, 1}, query_, scores_, kTile, kTile, padded_);
    add_tile_product({value_, padded_, 1}, dy_, gradient_, kTile, kTile, padded_);
    if (!sees_all(range, key)) mask_scores(range, key, scores_);
    if (in_.drops()) {
      dropped_softmax_gradient(lanes_, key, scores_, gradient_, log_sum_, delta_, shape.scale);
    } else {
      softmax_gradient(scores_, gradient_, log_sum_, delta_, shape.scale);
    }
    float* dk = dk_ + key * padded_;
    float* dv = dv_ + key * padded_;
    add_tile_product({scores_, kTile, 1}, dy_rows_, dv, kTile, padded_, kTile);
    add_tile_product({gradient_, kTile, 1}, query_rows_, dk, kTile, padded_, kTile);
    add_tile_product({key_, 1, padded_}, gradient_, dq_, padded_, kTile, kTile);
  }

  const Operands<T>& in_;
  const Tensors& tensors_;
  std::int64_t padded_;
  float* query_rows_;  // [kTile, P]
  float* query_;       // [P, kTile], scaled
  float* dy_rows_;     // [kTile, P]
  float* dy_;          // [P, kTile]
  float* key_;         // [kTile, P]
  float* value_;       // [kTile, P]
  float* dq_;          // [P, kTile]
  float* scores_;      // [kTile keys, kTile queries]
  float* gradient_;    // [kTile keys, kTile queries]
  float* dk_;          // [S, P]
  float* dv_;          // [S, P]
  float log_sum_[kTile];
  float delta_[kTile];
  DropoutLanes lanes_;  // of the query tile, where there is dropout
};

template <typename T>
void forward(const Operands<T>& in, T* y, float* log_sum, float* scratch, std::int64_t floats) {
  const AttentionShape& shape = in.shape;
  const std::int64_t tiles = (shape.tokens + kTile - 1) / kTile;
  const std::int64_t heads = shape.sequences * shape.heads;
#pragma omp parallel
  {
    ForwardTile<T> tile(in, scratch + omp_get_thread_num() * floats);
#pragma omp for schedule(dynamic)
    for (std::int64_t index = 0; index < heads * tiles; ++index) {
      const std::int64_t head = index / tiles;
      const std::int64_t query = (tiles - 1 - index % tiles) * kTile;  // the longest first
      tile.run(head / shape.heads, head % shape.heads, query, y, log_sum);
    }
  }
}

template <typename T>
void backward(const Operands<T>& in, const typename BackwardHead<T>::Tensors& tensors,
              float* scratch, std::int64_t floats) {
  const AttentionShape& shape = in.shape;
#pragma omp parallel
  {
    BackwardHead<T> head(in, tensors, scratch + omp_get_thread_num() * floats);
#pragma omp for schedule(dynamic)
    for (std::int64_t index = 0; index < shape.sequences * shape.kv_heads; ++index) {
      head.run(index / shape.kv_heads, index % shape.kv_heads);
    }
  }
}

void check_operands(const char* operation, const AttentionShape& shape, ConstTensorView q,
                    ConstTensorView k, ConstTensorView v, ConstTensorView first_key) {
  expects(shape.sequences >= 0 && shape.tokens >= 0 && shape.head_size > 0 && shape.kv_heads > 0 &&
              shape.heads > 0 && shape.heads % shape.kv_heads == 0,
          "attention: heads must be a positive multiple of kv_heads, and head_size positive");
  expects(shape.window >= 0, "attention: the window must not be negative");
  expects(shape.dropout.rate >= 0.0f && shape.dropout.rate < 1.0f,
          "attention: the rate of dropout must be in [0, 1)");
  const std::int64_t tokens = shape.sequences * shape.tokens;
  expect_compute(operation, "q", q);
  expect_tensor(operation, "q", q, q.dtype(), {tokens, shape.heads * shape.head_size});
  expect_tensor(operation, "k", k, q.dtype(), {tokens, shape.kv_heads * shape.head_size});
  expect_tensor(operation, "v", v, q.dtype(), {tokens, shape.kv_heads * shape.head_size});
  if (!first_key.empty()) {
    expect_tensor(operation, "first_key", first_key, Dtype::kI32, {tokens});
  }
}

template <typename T>
Operands<T> operands(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                     ConstTensorView v, ConstTensorView first_key) {
  return {shape, q.as<T>(), k.as<T>(), v.as<T>(),
          first_key.empty() ? nullptr : first_key.as<std::int32_t>()};
}

}  // namespace

void CpuOps::attention(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                       ConstTensorView v, ConstTensorView first_key, TensorView y,
                       TensorView log_sum, Stream& stream) {
  check_operands("attention", shape, q, k, v, first_key);
  expect_tensor("attention", "y", y, q.dtype(), q.shape());
  expect_tensor("attention", "log_sum", log_sum, Dtype::kF32, {q.shape()[0], shape.heads});
  submit(stream, threads_, [=, this] {
    const std::lock_guard lock(attention_mutex_);
    const std::int64_t floats = forward_floats(padded_head_size(shape.head_size));
    auto* scratch = static_cast<float*>(
        attention_scratch_.at_least(static_cast<std::size_t>(threads_ * floats) * sizeof(float)));
    visit_compute_dtype(q.dtype(), [&]<typename T>(T) {
      forward(operands<T>(shape, q, k, v, first_key), y.as<T>(), log_sum.as<float>(), scratch,
              floats);
    });
  });
}

void CpuOps::attention_backward(const AttentionShape& shape, ConstTensorView dy, ConstTensorView q,
                                ConstTensorView k, ConstTensorView v, ConstTensorView first_key,
                                ConstTensorView y, ConstTensorView log_sum, TensorView dq,
                                TensorView dk, TensorView dv, Stream& stream) {
  check_operands("attention_backward", shape, q, k, v, first_key);
  expect_tensor("attention_backward", "dy", dy, q.dtype(), q.shape());
  expect_tensor("attention_backward", "y", y, q.dtype(), q.shape());
  expect_tensor("attention_backward", "log_sum", log_sum, Dtype::kF32, {q.shape()[0], shape.heads});
  expect_tensor("attention_backward", "dq", dq, q.dtype(), q.shape());
  expect_tensor("attention_backward", "dk", dk, q.dtype(), k.shape());
  expect_tensor("attention_backward", "dv", dv, q.dtype(), k.shape());
  submit(stream, threads_, [=, this] {
    const std::lock_guard lock(attention_mutex_);
    const std::int64_t floats = backward_floats(padded_head_size(shape.head_size), shape.tokens);
    auto* scratch = static_cast<float*>(
        attention_scratch_.at_least(static_cast<std::size_t>(threads_ * floats) * sizeof(float)));
    visit_compute_dtype(q.dtype(), [&]<typename T>(T) {
      backward<T>(operands<T>(shape, q, k, v, first_key),
                  {dy.as<T>(), y.as<T>(), log_sum.as<float>(), dq.as<T>(), dk.as<T>(), dv.as<T>()},
                  scratch, floats);
    });
  });
}

}  // namespace strata::cpu
