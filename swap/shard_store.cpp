#include "swap/shard_store.h"

#include <algorithm>
#include <cstring>

#include "core/units.h"

namespace strata {
namespace {

std::size_t index_of(SectionKey key) {
  return static_cast<std::size_t>(key.block * kSectionCount + static_cast<int>(key.section));
}

/// Calls visit(key, offset) for every section that lies on swap; returns the end of the last one.
template <typename Visitor>
std::uint64_t lay_out(const ShardLayout& layout, const Residency& residency, Visitor&& visit) {
  std::uint64_t end = 0;
  for (int block = 0; block < residency.blocks(); ++block) {
    for (int s = 0; s < kSectionCount; ++s) {
      const SectionKey key{block, static_cast<Section>(s)};
      if (residency.resident(key) || layout.bytes(key) == 0) continue;
      visit(key, end);
      end = round_up(end + layout.bytes(key), ShardStore::kExtentAlignment);
    }
  }
  return end;
}

}  // namespace

std::string_view name(Section section) noexcept {
  constexpr std::array<std::string_view, kSectionCount> kNames{"hi", "lo",       "m",
                                                               "v",  "gradient", "weights"};
  return kNames[static_cast<std::size_t>(section)];
}

std::size_t ShardLayout::element(SectionKey key) const {
  const bool kept = (key.section == Section::kWeights) == is_frozen(key.block);
  return kept ? element_bytes[static_cast<std::size_t>(key.section)] : 0;
}

std::size_t ShardLayout::bytes(SectionKey key) const {
  return static_cast<std::size_t>(shard_numel.at(static_cast<std::size_t>(key.block))) *
         element(key);
}

std::size_t ShardLayout::total_bytes() const {
  std::size_t total = 0;
  for (int block = 0; block < static_cast<int>(shard_numel.size()); ++block) {
    for (int s = 0; s < kSectionCount; ++s) total += bytes({block, static_cast<Section>(s)});
  }
  return total;
}

Residency::Residency(int blocks, bool all)
    : bits_(static_cast<std::size_t>(blocks * kSectionCount), all) {}

std::uint64_t ShardStore::swap_bytes(const ShardLayout& layout, const Residency& residency) {
  return lay_out(layout, residency, [](SectionKey, std::uint64_t) {});
}

ShardStore::ShardStore(ShardLayout layout, Residency residency,
                       const MakeSwapSpace& make_swap_space)
    : layout_(std::move(layout)),
      residency_(std::move(residency)),
      extents_(static_cast<std::size_t>(residency_.blocks() * kSectionCount)),
      resident_(extents_.size()) {
  expects(layout_.shard_numel.size() == static_cast<std::size_t>(residency_.blocks()),
          "layout and residency must have the same blocks");
  const std::uint64_t bytes =
      lay_out(layout_, residency_,
              [this](SectionKey key, std::uint64_t offset) { extents_[index_of(key)] = offset; });
  if (bytes > 0) swap_space_ = make_swap_space(bytes);
  for (int block = 0; block < residency_.blocks(); ++block) {
    for (int s = 0; s < kSectionCount; ++s) {
      const SectionKey key{block, static_cast<Section>(s)};
      const std::size_t size = layout_.bytes(key);
      if (residency_.resident(key) && size > 0) resident_[index_of(key)] = allocate_host(size);
    }
  }
}

std::span<std::byte> ShardStore::memory(SectionKey key) const {
  expects(resident(key), "the section is not resident");
  const Buffer& buffer = resident_[index_of(key)];
  return {buffer.data(), buffer.bytes()};
}

std::uint64_t ShardStore::swap_offset(SectionKey key) const { return extents_[index_of(key)]; }

Lease ShardStore::lease(SectionKey key, std::int64_t begin, std::int64_t numel) const {
  const std::size_t element = layout_.element(key);
  expects(begin >= 0 && numel >= 0 &&
              begin + numel <= layout_.shard_numel.at(static_cast<std::size_t>(key.block)),
          "the range lies outside the section");
  Lease lease;
  lease.key_ = key;
  lease.offset_ = static_cast<std::uint64_t>(begin) * element;
  const std::size_t bytes = static_cast<std::size_t>(numel) * element;
  if (resident(key)) lease.memory_ = memory(key).subspan(lease.offset_, bytes);
  return lease;
}

Lease ShardStore::reserve(SectionKey key, std::int64_t begin, std::int64_t numel,
                          MemoryPool& pool) {
  Lease result = lease(key, begin, numel);
  if (!resident(key)) {
    result.block_ = pool.acquire(static_cast<std::size_t>(numel) * layout_.element(key));
    result.memory_ = result.block_.memory();
  }
  return result;
}

Lease ShardStore::fetch(SectionKey key, std::int64_t begin, std::int64_t numel, MemoryPool& pool) {
  Lease result = reserve(key, begin, numel, pool);
  if (!resident(key)) {
    result.ready_ = swap_space_->read(swap_offset(key) + result.offset_, result.memory_);
  }
  return result;
}

Lease ShardStore::fetch_into(SectionKey key, std::int64_t begin, std::int64_t numel,
                             std::span<std::byte> memory) {
  Lease result = lease(key, begin, numel);
  if (resident(key)) {
    expects(memory.size() == result.memory_.size(), "the memory has another size than the range");
    std::memcpy(memory.data(), result.memory_.data(), memory.size());
  } else {
    result.ready_ = swap_space_->read(swap_offset(key) + result.offset_, memory);
  }
  result.memory_ = memory;
  return result;
}

Lease ShardStore::adopt(SectionKey key, std::int64_t begin, std::int64_t numel,
                        std::span<std::byte> memory) {
  Lease result = lease(key, begin, numel);
  result.memory_ = memory;
  return result;
}

Event ShardStore::store(const Lease& lease) {
  if (!resident(lease.key_)) {
    return swap_space_->write(swap_offset(lease.key_) + lease.offset_, lease.memory_);
  }
  std::byte* home = memory(lease.key_).data() + lease.offset_;
  if (home != lease.memory_.data()) {
    std::memcpy(home, lease.memory_.data(), lease.memory_.size());
  }
  return {};
}

}  // namespace strata
