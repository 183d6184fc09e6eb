#include "core/cpu/lanes_over_pages.h"

#include "core/cpu/attention_tiles.h"
#include "core/cpu/lanes_avx512.h"

namespace strata::cpu {

bool LanesOverPages::can_read(Dtype pages) {
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  return supported && (pages == Dtype::kBf16 || is_quantized(pages));
}

LanesOverPages::LanesOverPages(const KvHeadLayout& layout, float scale)
    : layout_(layout),
      scale_(scale),
      padded_(layout.groups * kGroupNumel),
      queries_(static_cast<std::size_t>(kTile * padded_ / 2)),
      query_sums_(static_cast<std::size_t>(kTile * layout.groups)),
      score_steps_(kTile),
      outputs_(static_cast<std::size_t>(kTile * padded_)),
      maximum_(kTile),
      sum_(kTile),
      elements_(static_cast<std::size_t>(padded_)) {}

void LanesOverPages::clear() {
  const RunningSoftmax empty = empty_softmax();
  std::copy_n(empty.maximum, lanes_, maximum_.begin());
  std::copy_n(empty.sum, lanes_, sum_.begin());
  std::fill_n(outputs_.begin(), lanes_ * padded_, 0.0f);
}

void LanesOverPages::take_query(std::int64_t lane, const bf16* query) {
  constexpr float kPowersOfTwo = 1.44269504f;  // exp(x) = 2^(x / ln 2)
  std::uint32_t* words = queries_.data() + lane * padded_ / 2;
  float step = 1;
  if (is_quantized(layout_.dtype)) {
    std::copy_n(query, layout_.head_size, elements_.begin());
    step = over_pages::quantize_query(layout_.dtype, elements_.data(), layout_.groups, words,
                                      query_sums_.data() + lane * layout_.groups);
  } else {
    std::memcpy(words, query, static_cast<std::size_t>(layout_.head_size) * sizeof(bf16));
  }
  score_steps_[static_cast<std::size_t>(lane)] = step * scale_ * kPowersOfTwo;
}

void LanesOverPages::add_page(const KvPage& page, const std::uint64_t* seen) {
  const auto add =
      is_quantized(layout_.dtype) ? over_pages::add_quantized_page : over_pages::add_bf16_page;
  for (std::int64_t lane = 0; lane < lanes_; lane += over_pages::kMostLanes) {
    add({.layout = &layout_,
         .head = page.head(),
         .ahead = lane == 0 ? page.ahead() : 0,
         .seen = seen + lane,
         .padded = padded_,
         .queries = queries_.data() + lane * padded_ / 2,
         .query_sums = query_sums_.data() + lane * layout_.groups,
         .score_steps = score_steps_.data() + lane,
         .outputs = outputs_.data() + lane * padded_,
         .maximum = maximum_.data() + lane,
         .sum = sum_.data() + lane},
        std::min(over_pages::kMostLanes, lanes_ - lane));
  }
}

void LanesOverPages::finish(std::int64_t lane, bf16* y) const {
  const auto at = static_cast<std::size_t>(lane);
  const float factor = 1.0f / sum_[at];
  const float* output = outputs_.data() + lane * padded_;
  for (std::int64_t d = 0; d < layout_.head_size; d += 32) {
    bf16 rounded[32];
    over_pages::store_scaled(output + d, factor, rounded);
    std::copy_n(rounded, std::min<std::int64_t>(32, layout_.head_size - d), y + d);
  }
}

}  // namespace strata::cpu
