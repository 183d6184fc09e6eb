// Reading and writing parameters, whole or in part, wherever their shards rest.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/model/initial_values.h"
#include "core/units.h"
#include "optimizer/split.h"
#include "parallel/trainer_state.h"

namespace strata {
namespace {

/// Elements of a shard that pass through memory at a time: 4096-byte aligned in every section.
constexpr std::int64_t kStretch = 1 << 20;

/// Calls visit(begin, numel) for stretches that cover a shard's elements [from, to), cut so that
/// every section can be transferred. None if the range is empty or the wrong way round.
template <typename Visitor>
void for_stretches(std::int64_t from, std::int64_t to, Visitor&& visit) {
  if (from >= to) return;
  for (std::int64_t begin = from / kShardAlignment * kShardAlignment; begin < to;) {
    const std::int64_t end = std::min(begin + kStretch, round_up(to, kShardAlignment));
    visit(begin, end - begin);
    begin = end;
  }
}

/// Both halves of a stretch of masters, in memory of their own.
class Masters {
 public:
  Masters(ShardStore& store, int block) : store_(store), block_(block) {}

  void fetch(std::int64_t begin, std::int64_t numel) {
    hi_ = lease(Section::kHi, begin, numel, true);
    lo_ = lease(Section::kLo, begin, numel, true);
    hi_.ready().wait();
    lo_.ready().wait();
    values_.resize(static_cast<std::size_t>(numel));
    join(hi_.as<std::uint16_t>(), lo_.as<std::int16_t>(), numel, values_.data());
  }
  void start(std::int64_t begin, std::int64_t numel) {
    hi_ = lease(Section::kHi, begin, numel, false);
    lo_ = lease(Section::kLo, begin, numel, false);
    values_.assign(static_cast<std::size_t>(numel), 0.0f);
  }
  void store() {
    split(values_.data(), static_cast<std::int64_t>(values_.size()), hi_.as<std::uint16_t>(),
          lo_.as<std::int16_t>());
    const Event hi = store_.store(hi_);
    const Event lo = store_.store(lo_);
    hi.wait();
    lo.wait();
  }
  std::span<float> values() { return values_; }

 private:
  Lease lease(Section section, std::int64_t begin, std::int64_t numel, bool reads) {
    const std::span<std::byte> home =
        memory_[section == Section::kHi ? 0 : 1].first(static_cast<std::size_t>(numel) * 2);
    const SectionKey key{block_, section};
    return reads ? store_.fetch_into(key, begin, numel, home)
                 : store_.adopt(key, begin, numel, home);
  }

  ShardStore& store_;
  int block_;
  Buffer buffer_ = allocate_host(2 * kStretch * 2);
  std::array<std::span<std::byte>, 2> memory_{
      std::span<std::byte>(buffer_.data(), kStretch * 2),
      std::span<std::byte>(buffer_.data() + kStretch * 2, kStretch * 2)};
  std::vector<float> values_;
  Lease hi_;
  Lease lo_;
};

/// The part of flat elements [first, last) that lies in a stretch of a shard, as (offset into the
/// stretch, offset into the range, count).
struct Overlap {
  std::int64_t in_stretch = 0;
  std::int64_t in_range = 0;
  std::int64_t numel = 0;
};
Overlap overlap(std::int64_t flat_begin, std::int64_t stretch, std::int64_t first,
                std::int64_t last) {
  const std::int64_t from = std::max(flat_begin, first);
  const std::int64_t to = std::min(flat_begin + stretch, last);
  return {from - flat_begin, from - first, std::max<std::int64_t>(0, to - from)};
}

}  // namespace

ParameterSource random_parameters(std::uint64_t seed) {
  return [seed](Parameter parameter, std::int64_t begin, std::span<float> values) {
    initial_values(*parameter, seed, begin, values);
  };
}

void Trainer::fill(const ParameterSource& source) {
  State& state = *state_;
  for (int b = 0; b < state.model.block_count(); ++b) {
    const BlockPartition& block = state.partition.block(b);
    Masters masters(state.store, b);
    for_stretches(0, block.shard_numel(), [&](std::int64_t begin, std::int64_t numel) {
      const std::int64_t flat = state.shards.rank() * block.shard_numel() + begin;
      masters.start(begin, numel);
      for (const Placement& placement : block.placements()) {
        const Overlap part =
            overlap(flat, numel, placement.offset, placement.offset + placement.numel);
        if (part.numel == 0) continue;
        source(placement.parameter, part.in_range,
               masters.values().subspan(static_cast<std::size_t>(part.in_stretch),
                                        static_cast<std::size_t>(part.numel)));
      }
      masters.store();
    });
  }
}

void Trainer::read(Parameter parameter, std::int64_t begin, std::span<float> values) {
  flush();
  State& state = *state_;
  const BlockPartition& block = state.partition.block(parameter->block);
  const std::int64_t first = block.placement(parameter).offset + begin;
  const std::int64_t last = first + static_cast<std::int64_t>(values.size());
  expects(
      begin >= 0 && begin + static_cast<std::int64_t>(values.size()) <= parameter->shape.numel(),
      "the range lies outside the parameter");
  const std::int64_t shard = block.shard_numel();
  Masters masters(state.store, parameter->block);
  for (int owner = 0; owner < state.shards.size(); ++owner) {
    const std::int64_t from = std::max(first, owner * shard);
    const std::int64_t to = std::min(last, (owner + 1) * shard);
    if (from >= to) continue;
    const std::span<float> piece =
        values.subspan(static_cast<std::size_t>(from - first), static_cast<std::size_t>(to - from));
    if (owner == state.shards.rank()) {
      for_stretches(
          from - owner * shard, to - owner * shard, [&](std::int64_t stretch, std::int64_t numel) {
            masters.fetch(stretch, numel);
            const Overlap part = overlap(owner * shard + stretch, numel, from, to);
            std::memcpy(piece.data() + part.in_range, masters.values().data() + part.in_stretch,
                        static_cast<std::size_t>(part.numel) * sizeof(float));
          });
    }
    state.shards.broadcast(std::as_writable_bytes(piece), owner);
    state.shards.stream().synchronize();
  }
}

std::vector<float> Trainer::read(const std::string& name) {
  const Parameter parameter = find_parameter(name);
  std::vector<float> values(static_cast<std::size_t>(parameter->shape.numel()));
  read(parameter, 0, values);
  return values;
}

void Trainer::write(const std::string& name, std::span<const float> values) {
  const Parameter parameter = find_parameter(name);
  expects(static_cast<std::int64_t>(values.size()) == parameter->shape.numel(),
          "the values have another size than the parameter");
  flush();
  State& state = *state_;
  const BlockPartition& block = state.partition.block(parameter->block);
  const std::int64_t base = state.shards.rank() * block.shard_numel();
  const std::int64_t first = block.placement(parameter).offset;
  const std::int64_t last = first + static_cast<std::int64_t>(values.size());
  const std::int64_t from = std::max<std::int64_t>(0, first - base);
  const std::int64_t to = std::min(block.shard_numel(), last - base);
  Masters masters(state.store, parameter->block);
  for_stretches(from, to, [&](std::int64_t stretch, std::int64_t numel) {
    masters.fetch(stretch, numel);
    const Overlap part = overlap(base + stretch, numel, first, last);
    std::memcpy(masters.values().data() + part.in_stretch, values.data() + part.in_range,
                static_cast<std::size_t>(part.numel) * sizeof(float));
    masters.store();
  });
  state.streamer.forget(parameter->block);
}

Parameter Trainer::find_parameter(const std::string& name) const {
  const Parameter parameter = state_->model.find(name);
  if (parameter == nullptr) {
    throw UsageError(fmt::format("the model has no parameter named {}", name));
  }
  return parameter;
}

}  // namespace strata
