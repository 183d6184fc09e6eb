#pragma once

#include <cstdint>
#include <vector>

#include "core/cpu/kv_lines.h"
#include "core/paged_kv.h"

namespace strata::cpu {

/// Attention of up to kTile lanes, all of one key/value head, by instructions of AVX-512 that
/// multiply pairs of bf16 (vdpbf16ps) or fours of bytes (vpdpbusd). Queries are bf16; pages are
/// bf16, kQ8 or kQ4. What a lane gets does not depend on the others.
///
/// Shares, which are probabilities by the largest of the page, meet the values rounded: over bf16
/// to bf16. Over quantised pages queries, and shares times scales, become whole numbers by the
/// largest of them: of 14 bits and a sign over kQ8; of a byte over kQ4, whose values are off by ten
/// times as much.
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
  std::int64_t padded_;                   // D in whole groups
  std::vector<std::uint32_t> queries_;    // [kTile, padded / 2]: pairs, or bytes by group
  std::vector<std::int32_t> query_sums_;  // [kTile, groups]: of those bytes' numbers
  std::vector<float> score_steps_;        // [kTile]
  std::vector<float> outputs_;            // [kTile, padded]
  std::vector<float> maximum_, sum_;      // [kTile]; scores are powers of two
  std::vector<bf16> elements_;            // [padded]: a query
};

}  // namespace strata::cpu
