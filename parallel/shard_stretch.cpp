#include "parallel/shard_stretch.h"

#include "optimizer/split.h"
#include "parallel/rounding.h"

namespace strata {

ShardStretch::ShardStretch(ShardStore& store, int part, Dtype compute, Dtype precision)
    : store_(store),
      weights_(store.layout().weights(part)),
      whole_(weights_.section == Section::kWeights && !reads_hi(compute)),
      compute_(compute),
      lower_(weights_.section == Section::kHi && precision == Dtype::kF32) {}

void ShardStretch::fetch(std::int64_t begin, std::int64_t numel) {
  lease(begin, numel, true);
  for (const Lease& half : leases_) half.ready().wait();
  values_.resize(static_cast<std::size_t>(numel));
  if (whole_) {
    visit_compute_dtype(compute_, [&]<typename T>(T) {
      for (std::size_t i = 0; i < values_.size(); ++i) {
        values_[i] = static_cast<float>(leases_[0].as<T>()[i]);
      }
    });
  } else {
    join(leases_[0].as<std::uint16_t>(), low(), numel, values_.data());
  }
}

void ShardStretch::start(std::int64_t begin, std::int64_t numel) {
  lease(begin, numel, false);
  values_.assign(static_cast<std::size_t>(numel), 0.0f);
}

void ShardStretch::store() {
  if (whole_) {
    const Shape shape{static_cast<std::int64_t>(values_.size())};
    round_to({values_.data(), Dtype::kF32, shape}, {leases_[0].memory().data(), compute_, shape});
  } else {
    split(values_.data(), static_cast<std::int64_t>(values_.size()), leases_[0].as<std::uint16_t>(),
          low());
  }
  std::vector<Event> stored;
  for (const Lease& half : leases_) stored.push_back(store_.store(half));
  for (const Event& event : stored) event.wait();
}

void ShardStretch::lease(std::int64_t begin, std::int64_t numel, bool reads) {
  leases_.clear();
  std::span<std::byte> room(buffer_.data(), static_cast<std::size_t>(numel) * sizeof(float));
  const auto add = [&](SectionKey key) {
    const std::size_t bytes = store_.layout().element(key) * static_cast<std::size_t>(numel);
    leases_.push_back(reads ? store_.fetch_into(key, begin, numel, room.first(bytes))
                            : store_.adopt(key, begin, numel, room.first(bytes)));
    room = room.subspan(bytes);
  };
  add(weights_);
  if (lower_) {
    add({weights_.block, Section::kLo});
  } else {
    std::ranges::fill(room, std::byte{0});
  }
}

/// What follows the upper half in buffer_.
std::int16_t* ShardStretch::low() { return leases_[0].as<std::int16_t>() + values_.size(); }

}  // namespace strata
