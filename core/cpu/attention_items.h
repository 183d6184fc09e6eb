#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/cpu/attention_tiles.h"
#include "core/paged_kv.h"

namespace strata::cpu {

/// Lanes [lane, lane + lanes) of a sequence's rows and one key/value head.
struct AttentionItem {
  const SequenceRows* sequence;
  std::int64_t kv_head;
  std::int64_t lane;
  std::int64_t lanes;
};

/// What threads take one after the other.
class AttentionItems {
 public:
  AttentionItems(std::span<const SequenceRows> sequences, std::int64_t kv_heads,
                 std::int64_t group) {
    for (const SequenceRows& sequence : sequences) {
      const std::int64_t lanes = sequence.rows * group;
      for (std::int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
        for (std::int64_t lane = 0; lane < lanes; lane += kTile) {
          all_.push_back({&sequence, kv_head, lane, std::min(kTile, lanes - lane)});
        }
      }
    }
  }
  std::size_t size() const { return all_.size(); }
  /// nullptr when all are taken.
  const AttentionItem* take() { return at(next_.fetch_add(1, std::memory_order_relaxed)); }
  /// What would be taken now.
  const AttentionItem* peek() const { return at(next_.load(std::memory_order_relaxed)); }

 private:
  const AttentionItem* at(std::size_t index) const {
    return index < size() ? &all_[index] : nullptr;
  }

  std::vector<AttentionItem> all_;
  std::atomic<std::size_t> next_ = 0;
};

}  // namespace strata::cpu
