#include "swap/kv_cache.h"

#include <algorithm>

#include "core/error.h"

namespace strata {
namespace {

PagedKv one_layer(const KvShape& shape) {
  return {.memory = nullptr,
          .page_stride = 0,
          .dtype = shape.dtype,
          .kv_heads = shape.kv_heads,
          .head_size = shape.head_size};
}

}  // namespace

std::size_t KvShape::page_bytes() const {
  return static_cast<std::size_t>(layers) * one_layer(*this).page_bytes();
}

KvCache::KvCache(const KvShape& shape, std::span<std::byte> memory)
    : shape_(shape), memory_(memory.data()), users_(memory.size() / shape.page_bytes(), 0) {
  for (int page = page_count() - 1; page >= 0; --page) free_.push_back(page);
}

PagedKv KvCache::layer(int index) const {
  PagedKv layer = one_layer(shape_);
  layer.page_stride = layer.page_bytes();
  layer.memory = memory_ + static_cast<std::size_t>(index) * users_.size() * layer.page_stride;
  return layer;
}

KvCache::Id KvCache::add() {
  if (free_ids_.empty()) {
    sequences_.emplace_back();
    return static_cast<Id>(sequences_.size()) - 1;
  }
  const Id id = free_ids_.back();
  free_ids_.pop_back();
  return id;
}

KvCache::Id KvCache::add_sharing(Id other, int pages) {
  const Id id = add();
  const std::vector<std::int32_t>& from = sequence(other);
  expects(pages <= static_cast<int>(from.size()), "a sequence shares pages that the other has");
  std::vector<std::int32_t>& own = sequence(id);
  own.assign(from.begin(), from.begin() + pages);
  for (const std::int32_t page : own) {
    if (page >= 0) ++users_[static_cast<std::size_t>(page)];
  }
  return id;
}

bool KvCache::grow(Id id, std::int64_t tokens) {
  std::vector<std::int32_t>& own = sequence(id);
  const std::int64_t missing = pages_for(tokens) - static_cast<std::int64_t>(own.size());
  if (missing > free_pages()) return false;
  for (std::int64_t i = 0; i < missing; ++i) {
    own.push_back(free_.back());
    free_.pop_back();
    users_[static_cast<std::size_t>(own.back())] = 1;
  }
  return true;
}

void KvCache::give_back(std::int32_t& page) {
  if (page >= 0 && --users_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
  page = -1;
}

void KvCache::pass(Id id, std::int64_t token) {
  std::vector<std::int32_t>& own = sequence(id);
  const auto passed = std::min(static_cast<std::size_t>(token / kPageTokens), own.size());
  for (std::size_t i = 0; i < passed; ++i) give_back(own[i]);
}

void KvCache::remove(Id id) {
  for (std::int32_t& page : sequence(id)) give_back(page);
  sequence(id).clear();
  free_ids_.push_back(id);
}

std::span<const std::int32_t> KvCache::pages(Id id) const {
  return sequences_.at(static_cast<std::size_t>(id));
}

}  // namespace strata
