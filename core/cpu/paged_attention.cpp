#include "core/cpu/paged_attention.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/cpu/attention_items.h"
#include "core/cpu/attention_tiles.h"
#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/kv_lines.h"
#include "core/cpu/kv_pages.h"
#include "core/cpu/kv_scales.h"
#include "core/cpu/lanes_over_pages.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"
#include "core/cpu/tile_product.h"

// Attention over pages. A lane is one query head of one row; the lanes of a key/value head go over
// its pages together, kTile of them at most. What a query gets does not depend on what it is
// batched with: queries of bf16 are multiplied as they are by LanesOverPages where the processor
// can, whatever their number. Elsewhere many lanes are multiplied as tiles of fp32, as in
// attention.cpp; few (decoding) as rows of vectors over keys. Both add in the same order, key by
// key and element by element.

namespace strata::cpu {
namespace {

static_assert(kPageTokens == kTile);

/// Up to this many lanes a tile would mostly multiply nothing.
constexpr std::int64_t kFewLanes = 8;

template <typename C>
STRATA_MULTIVERSION void to_floats(const C* __restrict from, float* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}

/// Takes the scores of one lane in, of which it sees keys [begin, end): they become exp(score - new
/// maximum), and 0 where it sees none. Adds as take_scores() does.
/// @return by what everything before shrinks
STRATA_MULTIVERSION float take_lane_scores(float* __restrict scores, std::int64_t begin,
                                           std::int64_t end, float& maximum, float& sum) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  float highest[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) highest[lane] = maximum;
  for (std::int64_t key = 0; key < kPageTokens; key += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const bool seen = (begin <= key + lane) & (key + lane < end);
      const float score = seen ? scores[key + lane] : kNothing;
      scores[key + lane] = score;
      highest[lane] = highest[lane] < score ? score : highest[lane];
    }
  }
  float now = maximum;
  for (int lane = 0; lane < kLanes; ++lane) now = now < highest[lane] ? highest[lane] : now;
  for (std::int64_t key = 0; key < kPageTokens; ++key) scores[key] = exponential(scores[key] - now);
  const float shrink = exponential(maximum - now);
  float added = 0;
  for (std::int64_t key = begin; key < end; ++key) added += scores[key];
  sum = sum * shrink + added;
  maximum = now;
  return shrink;
}

STRATA_MULTIVERSION void scale(float* __restrict values, float factor, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] *= factor;
}

/// What every lane needs to know of a call.
template <typename T>
struct Operands {
  AttentionShape shape;
  PagedKv kv;
  const T* q;
  T* y;
  bool portable;

  std::int64_t group() const { return shape.heads / shape.kv_heads; }
};

/// One thread's memory and work.
template <typename T>
class Worker {
 public:
  Worker(const Operands<T>& in, const AttentionItems& items)
      : in_(in),
        items_(items),
        layout_(in.kv.dtype, in.shape.head_size),
        size_(in.shape.head_size),
        padded_(padded_head_size(size_)),
        tokens_ahead_(static_cast<std::int64_t>((kBytesAhead - 1) / layout_.bytes + 1) *
                      kPageTokens) {
    if constexpr (std::is_same_v<T, bf16>) {
      if (!in.portable && LanesOverPages::can_read(in.kv.dtype)) {
        over_pages_.emplace(layout_, in.shape.scale);
        return;
      }
    }
    for (auto* tile : {&query_, &lanes_, &keys_, &values_, &output_}) {
      tile->resize(static_cast<std::size_t>(kTile * padded_));
    }
    for (auto* tile : {&scores_, &parts_}) tile->resize(static_cast<std::size_t>(kTile * kTile));
  }

  void run(const AttentionItem& item) {
    item_ = item;
    find_range();
    if constexpr (std::is_same_v<T, bf16>) {
      if (over_pages_) return run_over_pages();
    }
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
  const std::byte* head(const AttentionItem& item, std::int64_t key) const {
    const std::int32_t page = item.sequence->pages[static_cast<std::size_t>(key / kPageTokens)];
    return head_of(in_.kv, layout_, page, item.kv_head);
  }
  /// The head that should come from memory while `key`'s is worked on: of a page so far behind it
  /// that there is time, perhaps of the item that follows.
  const std::byte* wanted_next(std::int64_t key) const {
    const std::int64_t next = key + tokens_ahead_;
    if (next < range_.end) return head(item_, next);
    const AttentionItem* item = items_.peek();
    if (item == nullptr) return head(item_, key);
    const std::int64_t position = item->sequence->position, window = in_.shape.window;
    const std::int64_t first = position + item->lane / in_.group() - window + 1;
    const std::int64_t begin = window > 0 ? std::max<std::int64_t>(0, first) : 0;
    const std::int64_t end = position + (item->lane + item->lanes - 1) / in_.group() + 1;
    const std::int64_t whole = (range_.end + kPageTokens - 1) / kPageTokens * kPageTokens;
    const std::int64_t there = begin / kPageTokens * kPageTokens + next - whole;
    return there < end ? head(*item, there) : head(item_, key);
  }
  /// Calls visit(first token, keys and values) for the pages that any lane sees.
  template <typename Visit>
  void for_pages(const Visit& visit) const {
    for (std::int64_t key = range_.begin / kPageTokens * kPageTokens; key < range_.end;
         key += kPageTokens) {
      visit(key, KvPage(layout_, head(item_, key), wanted_next(key)));
    }
  }

  /// Bits of the tokens of a page that a lane sees.
  std::uint64_t seen(std::int64_t lane, std::int64_t key) const {
    const std::int64_t begin = std::max<std::int64_t>(0, range_.first[lane] - key);
    const std::int64_t end = std::min<std::int64_t>(kPageTokens, range_.last[lane] + 1 - key);
    if (begin >= end) return 0;
    return ~std::uint64_t{0} >> (kPageTokens - (end - begin)) << begin;
  }
  void run_over_pages() {
    over_pages_->begin(item_.lanes, [&](std::int64_t lane) { return in_.q + offset(lane); });
    for_pages([&](std::int64_t key, const KvPage& page) {
      std::uint64_t tokens[kTile];
      for (std::int64_t lane = 0; lane < item_.lanes; ++lane) tokens[lane] = seen(lane, key);
      over_pages_->add_page(page, tokens);
    });
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      over_pages_->finish(lane, in_.y + offset(lane));
    }
  }

  void run_few() {
    RunningSoftmax softmax = empty_softmax();
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      scale(query_.data() + lane * padded_, in_.shape.scale, size_);
    }
    for_pages([&](std::int64_t key, const KvPage& page) {
      find_few_scores(page);
      const auto [begin, end] = take_few_scores(key, softmax);
      add_few_values(page, begin, end);
    });
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      float* output = output_.data() + lane * padded_;
      scale(output, 1.0f / softmax.sum[lane], size_);
      T* y = in_.y + offset(lane);
      for (std::int64_t d = 0; d < size_; ++d) store(y[d], output[d]);
    }
  }
  void find_few_scores(const KvPage& page) {
    const std::int64_t all = item_.lanes * kTile;
    std::fill_n(scores_.data(), all, 0.0f);
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      const float* query = query_.data() + group * kGroupNumel;
      if (!quantized_) {
        add_kv_lines(page.keys(group), query, padded_, item_.lanes, scores_.data(), kTile);
        continue;
      }
      std::fill_n(parts_.data(), all, 0.0f);
      add_kv_lines(page.keys(group), query, padded_, item_.lanes, parts_.data(), kTile);
      for (std::int64_t i = 0; i < all; i += kTile) {
        add_scaled_lane(parts_.data() + i, page.key_scales(group), scores_.data() + i);
      }
    }
  }
  /// @return the keys of the page that any lane sees; probabilities of others are 0 where needed
  std::pair<std::int64_t, std::int64_t> take_few_scores(std::int64_t key, RunningSoftmax& softmax) {
    std::int64_t first = kPageTokens, last = 0;
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      const std::int64_t begin = std::max<std::int64_t>(0, range_.first[lane] - key);
      const std::int64_t end = std::min<std::int64_t>(kPageTokens, range_.last[lane] + 1 - key);
      float* scores = scores_.data() + lane * kTile;
      if (begin >= end) {
        std::fill_n(scores, kTile, 0.0f);
        continue;
      }
      const float shrink =
          take_lane_scores(scores, begin, end, softmax.maximum[lane], softmax.sum[lane]);
      scale(output_.data() + lane * padded_, shrink, size_);
      first = std::min(first, begin);
      last = std::max(last, end);
    }
    return {first, last};
  }
  void add_few_values(const KvPage& page, std::int64_t begin, std::int64_t end) {
    if (begin >= end) return;
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      const float* factors = scores_.data();
      if (quantized_) {
        for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
          scale_lane(scores_.data() + lane * kTile, page.value_scales(group),
                     parts_.data() + lane * kTile);
        }
        factors = parts_.data();
      }
      add_kv_lines(page.values(group, begin, end), factors, kTile, item_.lanes,
                   output_.data() + group * kGroupNumel, padded_);
    }
  }

  void run_tile() {
    RunningSoftmax softmax = empty_softmax();
    transpose_to_lanes(query_.data(), padded_, in_.shape.scale, lanes_.data());
    for_pages([&](std::int64_t key, const KvPage& page) {
      const std::int64_t keys = std::min(kPageTokens, range_.end - key);
      decode(page, keys);
      find_tile_scores(page);
      if (!sees_all(range_, key)) mask_scores(range_, key, scores_.data());
      take_scores(scores_.data(), softmax, output_.data(), padded_);
      add_tile_values(page, keys);
    });
    for (std::int64_t lane = 0; lane < item_.lanes; ++lane) {
      const float factor = 1.0f / softmax.sum[lane];
      T* y = in_.y + offset(lane);
      for (std::int64_t d = 0; d < size_; ++d) {
        store(y[d], output_[static_cast<std::size_t>(d * kTile + lane)] * factor);
      }
    }
  }
  void decode(const KvPage& page, std::int64_t keys) {
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      const std::int64_t first = group * kGroupNumel;
      decode_kv_lines(page.keys(group), keys_.data() + first * kTile, kTile);
      decode_kv_lines(page.values(group, 0, keys), values_.data() + first, padded_);
    }
    std::fill(values_.begin() + keys * padded_, values_.end(), 0.0f);
  }
  void find_tile_scores(const KvPage& page) {
    std::ranges::fill(scores_, 0.0f);
    if (!quantized_) {
      add_tile_product({keys_.data(), 1, kTile}, lanes_.data(), scores_.data(), kTile, kTile,
                       size_);
      return;
    }
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      const std::int64_t first = group * kGroupNumel * kTile;
      std::ranges::fill(parts_, 0.0f);
      add_tile_product({keys_.data() + first, 1, kTile}, lanes_.data() + first, parts_.data(),
                       kTile, kTile, layout_.group_elements(group));
      add_scaled_tile(parts_.data(), page.key_scales(group), scores_.data());
    }
  }
  void add_tile_values(const KvPage& page, std::int64_t keys) {
    if (!quantized_) {
      add_tile_product({values_.data(), 1, padded_}, scores_.data(), output_.data(), padded_, kTile,
                       kTile);
      return;
    }
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      const std::int64_t first = group * kGroupNumel;
      scale_tile(scores_.data(), page.value_scales(group), keys, parts_.data());
      add_tile_product({values_.data() + first, 1, padded_}, parts_.data(),
                       output_.data() + first * kTile, std::min(kGroupNumel, padded_ - first),
                       kTile, kTile);
    }
  }

  static constexpr std::size_t kBytesAhead = std::size_t{16} << 10;

  const Operands<T>& in_;
  const AttentionItems& items_;
  KvHeadLayout layout_;
  bool quantized_ = is_quantized(layout_.dtype);
  AttentionItem item_{};
  QueryRange range_{};
  std::int64_t size_;
  std::int64_t padded_;
  std::int64_t tokens_ahead_;  // whole pages, kBytesAhead or a little more
  std::optional<LanesOverPages> over_pages_;
  std::vector<float> query_;   // [lanes, P]
  std::vector<float> lanes_;   // [P, kTile], scaled
  std::vector<float> keys_;    // [D, kTile]
  std::vector<float> values_;  // [kTile, P]
  std::vector<float> output_;  // few: [lanes, P]; tile: [P, kTile]
  std::vector<float> scores_;  // few: [lanes, kTile keys]; tile: [kTile keys, kTile lanes]
  std::vector<float> parts_;   // as scores, of one group
};

template <typename T>
void attend(const Operands<T>& in, std::span<const SequenceRows> sequences) {
  AttentionItems items(sequences, in.shape.kv_heads, in.group());
#pragma omp parallel if (items.size() > 1)
  {
    Worker<T> worker(in, items);
    while (const AttentionItem* item = items.take()) worker.run(*item);
  }
}

}  // namespace

void attend_over_pages(const AttentionShape& shape, const PagedKv& kv,
                       std::span<const SequenceRows> sequences, ConstTensorView q, TensorView y,
                       RowProduct::Kernels kernels) {
  visit_compute_dtype(q.dtype(), [&]<typename T>(T) {
    attend(Operands<T>{.shape = shape,
                       .kv = kv,
                       .q = q.as<T>(),
                       .y = y.as<T>(),
                       .portable = kernels == RowProduct::Kernels::kPortable},
           sequences);
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
  expect_format(kv);
  expect_pages(sequences, rows.rows);
  submit(stream, threads_,
         [=] { attend_over_pages(shape, kv, sequences, q, y, RowProduct::Kernels::kFastest); });
}

}  // namespace strata::cpu
