#pragma once

#include <cstdint>
#include <vector>

#include "core/cpu/kv_lines.h"
#include "core/paged_kv.h"

namespace strata::cpu {

/// Attention of up to kTile lanes, all of one key/value head, by instructions of AVX-512 that
/// multiply pairs of bf16 (vdpbf16ps) or fours of bytes (vpdpbusd). Queries are bf16; pages are
/// bf16, kQ8 or kQ4.
///
/// Over pages of bf16, probabilities are rounded to bf16. Over quantised pages, queries and
/// probabilities times scales become whole numbers of 15 and 14 bits, by the largest of a group, in
/// two bytes: sums of products are then exact. What a lane gets does not depend on the others.
class LanesOverPages {
 public:
  /// Whether this processor has the instructions, for pages of this format.
  static bool can_read(Dtype pages);

  /// @pre can_read(layout.dtype) @param scale what scores are multiplied by
  LanesOverPages(const KvHeadLayout& layout, float scale);

  /// Forgets what was, and takes so many queries: query(lane) points to D elements.
  template <typename Query>
  void begin(std::int64_t lanes, const Query& query) {
    lanes_ = lanes;
    clear();
    for (std::int64_t lane = 0; lane < lanes; ++lane) take_query(lane, query(lane));
  }
  /// Bit t of seen[lane] says whether the lane sees token t of the page. Others may be anything;
  /// those that any lane sees follow each other.
  void add_page(const KvPage& page, const std::uint64_t* seen);
  /// Writes D elements. @pre the lane saw a token
  void finish(std::int64_t lane, bf16* y) const;

 private:
  void clear();
  void take_query(std::int64_t lane, const bf16* query);

  KvHeadLayout layout_;
  float scale_;
  std::int64_t lanes_ = 0;
  std::int64_t padded_;                 // D in whole groups
  std::vector<std::uint32_t> queries_;  // [kTile, padded / 2]: pairs; or by group the bytes' halves
  std::vector<float> query_steps_;      // [kTile, groups]: what their whole numbers mean, scaled
  std::vector<std::int32_t> query_sums_;  // [kTile, groups]: of the whole numbers
  std::vector<float> outputs_;            // [kTile, padded]
  std::vector<float> maximum_, sum_;      // [kTile]
};

}  // namespace strata::cpu
