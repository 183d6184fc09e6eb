#include "swap/kv_swap.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace strata {
namespace {

/// Bytes under way: a drive's queue of them.
constexpr std::size_t kStagedBytes = 16 << 20;

std::size_t slot_bytes(const KvShape& shape) { return round_up(shape.page_bytes(), kIoAlignment); }

std::size_t staged_pages(const KvShape& shape) {
  return std::max<std::size_t>(2, kStagedBytes / slot_bytes(shape));
}

}  // namespace

std::size_t KvSwap::staging_bytes(const KvShape& shape) {
  return staged_pages(shape) * slot_bytes(shape);
}

std::uint64_t KvSwap::space_bytes(const KvShape& shape, std::uint64_t bytes) {
  return bytes / slot_bytes(shape) * slot_bytes(shape);
}

KvSwap::KvSwap(KvCache& cache, const KvShape& shape, std::unique_ptr<SwapSpace> space)
    : cache_(cache),
      layers_(shape.layers),
      slot_bytes_(slot_bytes(shape)),
      staging_(allocate_host(staging_bytes(shape))),
      written_(staged_pages(shape)),
      space_(std::move(space)) {
  const auto slots = static_cast<std::int32_t>(space_->bytes() / slot_bytes_);
  for (std::int32_t slot = slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

KvSwap::~KvSwap() { space_.reset(); }

std::span<std::byte> KvSwap::staged(std::size_t index) const {
  return {staging_.data() + index * slot_bytes_, slot_bytes_};
}

void KvSwap::copy(std::int32_t page, std::byte* staged, bool to_cache) const {
  for (int index = 0; index < layers_; ++index) {
    const PagedKv layer = cache_.layer(index);
    std::byte* own = layer.memory + static_cast<std::size_t>(page) * layer.page_stride;
    std::memcpy(to_cache ? own : staged, to_cache ? staged : own, layer.page_stride);
    staged += layer.page_stride;
  }
}

std::vector<std::int32_t> KvSwap::store(std::span<const std::int32_t> pages) {
  expects(pages.size() <= free_.size(), "pages are stored for which there are slots");
  std::vector<std::int32_t> slots;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    expects(pages[i] >= 0, "a page is stored that was not given back");
    const std::size_t place = i % written_.size();
    written_[place].wait();
    copy(pages[i], staged(place).data(), false);
    slots.push_back(free_.back());
    free_.pop_back();
    const auto offset = static_cast<std::uint64_t>(slots.back()) * slot_bytes_;
    written_[place] = space_->write(offset, staged(place));
  }
  return slots;
}

void KvSwap::load(std::span<const std::int32_t> slots, std::span<const std::int32_t> pages) {
  expects(slots.size() == pages.size(), "a page is loaded from a slot");
  for (const Event& event : written_) event.wait();
  const std::size_t at_once = written_.size();
  std::vector<Event> read(slots.size());
  const auto submit = [&](std::size_t i) {
    const auto offset = static_cast<std::uint64_t>(slots[i]) * slot_bytes_;
    read[i] = space_->read(offset, staged(i % at_once));
  };
  for (std::size_t i = 0; i < std::min(at_once, read.size()); ++i) submit(i);
  for (std::size_t i = 0; i < read.size(); ++i) {
    read[i].wait();
    copy(pages[i], staged(i % at_once).data(), true);
    if (i + at_once < read.size()) submit(i + at_once);
  }
}

void KvSwap::drop(std::span<const std::int32_t> slots) {
  free_.insert(free_.end(), slots.begin(), slots.end());
}

}  // namespace strata
