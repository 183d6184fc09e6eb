#include <algorithm>
#include <limits>
#include <vector>

#include "core/cpu/attention_tiles.h"
#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"
#include "core/cpu/tile_product.h"

// Attention over pages. A lane is one query head of one row; the lanes of a key/value head go over
// its pages together, kTile of them at most. Many lanes are multiplied as tiles, as in
// attention.cpp; few (decoding) as rows of vectors over keys. Both add in the same order, key by
// key and element by element, so what a query gets does not depend on what it is batched with.

namespace strata::cpu {
namespace {

static_assert(kPageTokens == kTile);

/// Up to this many lanes a tile would mostly multiply nothing.
constexpr std::int64_t kFewLanes = 8;

template <typename T, typename C>
STRATA_MULTIVERSION void store_token(const T* __restrict key, const T* __restrict value,
                                     std::int64_t head_size, C* __restrict keys,
                                     C* __restrict values) {
  for (std::int64_t d = 0; d < head_size; ++d) store(keys[d * kPageTokens], load(key[d]));
  for (std::int64_t d = 0; d < head_size; ++d) store(values[d], load(value[d]));
}

template <typename C>
STRATA_MULTIVERSION void to_floats(const C* __restrict from, float* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}

/// scores[key] = sum over d, in order, of query[d] keys[d, key].
template <typename C>
STRATA_MULTIVERSION void key_scores(const float* __restrict query, const C* __restrict keys,
                                    std::int64_t head_size, float* __restrict scores) {
  float sums[kPageTokens] = {};
  for (std::int64_t d = 0; d < head_size; ++d) {
    const float factor = query[d];
    for (std::int64_t key = 0; key < kPageTokens; ++key) {
      sums[key] += factor * load(keys[d * kPageTokens + key]);
    }
  }
  for (std::int64_t key = 0; key < kPageTokens; ++key) scores[key] = sums[key];
}

STRATA_MULTIVERSION float largest_score(const float* __restrict scores, std::int64_t begin,
                                        std::int64_t end, float largest) {
  for (std::int64_t key = begin; key < end; ++key) {
    largest = largest < scores[key] ? scores[key] : largest;
  }
  return largest;
}

STRATA_MULTIVERSION float shrink_factor(float before, float now) {
  return exponential(before - now);
}

/// Rounded as the tile's: once where the processor multiplies and adds in one.
STRATA_MULTIVERSION float advance_sum(float sum, float shrink, float added) {
  return sum * shrink + added;
}

STRATA_MULTIVERSION void exponentiate(float* __restrict scores, float maximum) {
  for (std::int64_t key = 0; key < kPageTokens; ++key) {
    scores[key] = exponential(scores[key] - maximum);
  }
}

STRATA_MULTIVERSION void scale(float* __restrict values, float factor, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] *= factor;
}

/// output[d] += sum over keys, in order, of probability[key] values[key, d].
template <typename C>
STRATA_MULTIVERSION void add_values(const float* __restrict probabilities,
                                    const C* __restrict values, std::int64_t begin,
                                    std::int64_t end, std::int64_t head_size,
                                    float* __restrict output) {
  for (std::int64_t key = begin; key < end; ++key) {
    const float factor = probabilities[key];
    const C* line = values + key * head_size;
    for (std::int64_t d = 0; d < head_size; ++d) output[d] += factor * load(line[d]);
  }
}

/// What every lane needs to know of a call.
template <typename T, typename C>
struct Operands {
  AttentionShape shape;
  PagedKv kv;
  const T* q;
  T* y;

  std::int64_t group() const { return shape.heads / shape.kv_heads; }
  std::int64_t head_elements() const { return shape.head_size * kPageTokens; }
  const C* keys(std::int32_t page, std::int64_t kv_head) const {
    return reinterpret_cast<const C*>(kv.memory + static_cast<std::size_t>(page) * kv.page_stride) +
           2 * kv_head * head_elements();
  }
  const C* values(std::int32_t page, std::int64_t kv_head) const {
    return keys(page, kv_head) + head_elements();
  }
};

/// Lanes [lane, lane + lanes) of a sequence's rows and one key/value head.
struct Item {
  const SequenceRows* sequence;
  std::int64_t kv_head;
  std::int64_t lane;
  std::int64_t lanes;
};

/// One thread's memory and work.
template <typename T, typename C>
class Worker {
 public:
  explicit Worker(const Operands<T, C>& in)
      : in_(in),
        size_(in.shape.head_size),
        padded_(padded_head_size(size_)),
        query_(static_cast<std::size_t>(kTile * padded_)),
        lanes_(query_.size()),
        keys_(query_.size()),
        values_(query_.size()),
        output_(query_.size()),
        scores_(static_cast<std::size_t>(kTile * kTile)) {}

  void run(const Item& item) {
    item_ = item;
    find_range();
    for (std::int64_t lane = 0; lane < item.lanes; ++lane) {
      float* query = query_.data() + lane * padded_;
      to_floats(in_.q + offset(lane), query, size_);
    }
    std::ranges::fill(output_, 0.0f);
    if (item.lanes <= kFewLanes) {
      run_few();
    } else {
      run_tile();
    }
  }

 private:
  std::int64_t token(std::int64_t lane) const { return (item_.lane + lane) / in_.group(); }
  /// Of a lane's head in q and y.
  std::int64_t offset(std::int64_t lane) const {
    const std::int64_t head = item_.kv_head * in_.group() + (item_.lane + lane) % in_.group();
    return ((item_.sequence->row + token(lane)) * in_.shape.heads + head) * size_;
  }
  void find_range() {
    range_.end = 0;
    range_.begin = std::numeric_limits<std::int64_t>::max();
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      if (lane >= item_.lanes) {
        range_.first[lane] = std::numeric_limits<std::int32_t>::max();
        range_.last[lane] = -1;
        continue;
      }
      const std::int64_t last = item_.sequence->position + token(lane);
      const std::int64_t window = in_.shape.window;
      const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, last - window + 1) : 0;
      range_.first[lane] = static_cast<std::int32_t>(first);
      range_.last[lane] = static_cast<std::int32_t>(last);
      range_.begin = std::min(range_.begin, first);
      range_.end = std::max(range_.end, last + 1);
    }
  }
  /// Calls visit(first token, page) for the pages that any lane sees.
  template <typename Visit>
  void for_pages(const Visit& visit) const {
    for (std::int64_t key = range_.begin / kPageTokens * kPageTokens; key < range_.end;
         key += kPageTokens) {
      visit(key, item_.sequence->pages[static_cast<std::size_t>(key / kPageTokens)]);
    }
  }

  void run_few() {
    RunningSoftmax softmax = empty_softmax();
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      scale(query_.data() + lane * padded_, in_.shape.scale, size_);
    }
    for_pages([&](std::int64_t key, std::int32_t page) {
      for (std::int64_t lane = 0; lane < item_.lanes; ++lane) take_page(key, page, lane, softmax);
    });
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      float* output = output_.data() + lane * padded_;
      scale(output, 1.0f / softmax.sum[lane], size_);
      T* y = in_.y + offset(lane);
      for (std::int64_t d = 0; d < size_; ++d) store(y[d], output[d]);
    }
  }
  void take_page(std::int64_t key, std::int32_t page, std::int64_t lane, RunningSoftmax& softmax) {
    const std::int64_t begin = std::max<std::int64_t>(0, range_.first[lane] - key);
    const std::int64_t end = std::min<std::int64_t>(kPageTokens, range_.last[lane] + 1 - key);
    if (begin >= end) return;
    float* scores = scores_.data();
    float* output = output_.data() + lane * padded_;
    key_scores(query_.data() + lane * padded_, in_.keys(page, item_.kv_head), size_, scores);
    const float maximum = largest_score(scores, begin, end, softmax.maximum[lane]);
    const float shrink = shrink_factor(softmax.maximum[lane], maximum);
    exponentiate(scores, maximum);
    float sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += scores[i];
    softmax.sum[lane] = advance_sum(softmax.sum[lane], shrink, sum);
    softmax.maximum[lane] = maximum;
    scale(output, shrink, size_);
    add_values(scores, in_.values(page, item_.kv_head), begin, end, size_, output);
  }

  void run_tile() {
    RunningSoftmax softmax = empty_softmax();
    transpose_to_lanes(query_.data(), padded_, in_.shape.scale, lanes_.data());
    for_pages([&](std::int64_t key, std::int32_t page) {
      const std::int64_t keys = std::min(kPageTokens, range_.end - key);
      to_floats(in_.keys(page, item_.kv_head), keys_.data(), in_.head_elements());
      load_rows(in_.values(page, item_.kv_head), size_, keys, size_, values_.data());
      std::ranges::fill(scores_, 0.0f);
      add_tile_product({keys_.data(), 1, kTile}, lanes_.data(), scores_.data(), kTile, kTile,
                       size_);
      if (!sees_all(range_, key)) mask_scores(range_, key, scores_.data());
      take_scores(scores_.data(), softmax, output_.data(), padded_);
      add_tile_product({values_.data(), 1, padded_}, scores_.data(), output_.data(), padded_, kTile,
                       kTile);
    });
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      const float factor = 1.0f / softmax.sum[lane];
      T* y = in_.y + offset(lane);
      for (std::int64_t d = 0; d < size_; ++d) {
        store(y[d], output_[static_cast<std::size_t>(d * kTile + lane)] * factor);
      }
    }
  }

  const Operands<T, C>& in_;
  Item item_{};
  QueryRange range_{};
  std::int64_t size_;
  std::int64_t padded_;
  std::vector<float> query_;   // [lanes, P]
  std::vector<float> lanes_;   // [P, kTile], scaled
  std::vector<float> keys_;    // [D, kTile]
  std::vector<float> values_;  // [kTile, P]
  std::vector<float> output_;  // few: [lanes, P]; tile: [P, kTile]
  std::vector<float> scores_;  // few: [kTile]; tile: [kTile keys, kTile lanes]
};

template <typename T, typename C>
void attend(const Operands<T, C>& in, std::span<const SequenceRows> sequences) {
  std::vector<Item> items;
  for (const SequenceRows& sequence : sequences) {
    const std::int64_t lanes = sequence.rows * in.group();
    for (std::int64_t kv_head = 0; kv_head < in.shape.kv_heads; ++kv_head) {
      for (std::int64_t lane = 0; lane < lanes; lane += kTile) {
        items.push_back({&sequence, kv_head, lane, std::min(kTile, lanes - lane)});
      }
    }
  }
  const auto count = static_cast<std::int64_t>(items.size());
#pragma omp parallel if (count > 1)
  {
    Worker<T, C> worker(in);
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) worker.run(items[static_cast<std::size_t>(i)]);
  }
}

void expect_pages(std::span<const SequenceRows> sequences, std::int64_t rows) {
  for (const SequenceRows& sequence : sequences) {
    const std::int64_t end = sequence.position + sequence.rows;
    expects(sequence.rows >= 0 && sequence.position >= 0 && sequence.row >= 0 &&
                sequence.row + sequence.rows <= rows,
            "the rows of a sequence lie outside the batch");
    expects(end <= static_cast<std::int64_t>(sequence.pages.size()) * kPageTokens,
            "a sequence has more tokens than its pages hold");
  }
}

}  // namespace

void CpuOps::append_kv(const PagedKv& kv, std::span<const SequenceRows> sequences,
                       ConstTensorView k, ConstTensorView v, Stream& stream) {
  expect_compute("append_kv", "k", k);
  const Rows rows = rows_of("append_kv", k);
  expect_tensor("append_kv", "v", v, k.dtype(), k.shape());
  expects(rows.features == kv.kv_heads * kv.head_size,
          "append_kv: k has other heads than the pages");
  expect_pages(sequences, rows.rows);
  submit(stream, threads_, [=] {
    visit_compute_dtype(k.dtype(), [&]<typename T>(T) {
      visit_compute_dtype(kv.dtype, [&]<typename C>(C) {
        const Operands<T, C> in{.shape = {.kv_heads = kv.kv_heads, .head_size = kv.head_size},
                                .kv = kv,
                                .q = nullptr,
                                .y = nullptr};
        for (const SequenceRows& sequence : sequences) {
          for_blocks(sequence.rows, 1, [&](std::int64_t row, std::int64_t) {
            const std::int64_t token = sequence.position + row;
            const std::int32_t page = sequence.pages[static_cast<std::size_t>(token / kPageTokens)];
            const std::int64_t place = token % kPageTokens;
            for (std::int64_t head = 0; head < kv.kv_heads; ++head) {
              const std::int64_t from = ((sequence.row + row) * kv.kv_heads + head) * kv.head_size;
              C* keys = const_cast<C*>(in.keys(page, head)) + place;
              C* values = const_cast<C*>(in.values(page, head)) + place * kv.head_size;
              store_token(k.as<T>() + from, v.as<T>() + from, kv.head_size, keys, values);
            }
          });
        }
      });
    });
  });
}

void CpuOps::paged_attention(const AttentionShape& shape, const PagedKv& kv,
                             std::span<const SequenceRows> sequences, ConstTensorView q,
                             TensorView y, Stream& stream) {
  expect_compute("paged_attention", "q", q);
  const Rows rows = rows_of("paged_attention", q);
  expect_tensor("paged_attention", "y", y, q.dtype(), q.shape());
  expects(rows.features == shape.heads * shape.head_size && kv.head_size == shape.head_size &&
              kv.kv_heads == shape.kv_heads,
          "paged_attention: q, shape and pages have different heads");
  expect_pages(sequences, rows.rows);
  submit(stream, threads_, [=] {
    visit_compute_dtype(q.dtype(), [&]<typename T>(T) {
      visit_compute_dtype(kv.dtype, [&]<typename C>(C) {
        attend(Operands<T, C>{.shape = shape, .kv = kv, .q = q.as<T>(), .y = y.as<T>()}, sequences);
      });
    });
  });
}

}  // namespace strata::cpu
