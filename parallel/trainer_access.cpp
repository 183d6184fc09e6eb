// Reading and writing parameters, whole or in part, wherever their shards rest.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/model/initial_values.h"
#include "parallel/overlap.h"
#include "parallel/shard_stretch.h"
#include "parallel/trainer_state.h"

namespace strata {
namespace {

/// @throws UsageError if fp16 products would see an infinity in place of one of the values
void expect_f16_range(Parameter parameter, std::span<const float> values) {
  const auto large = std::ranges::find_if(values, exceeds_f16);
  if (large == values.end()) return;
  throw UsageError(fmt::format(
      "{}: the value {} is beyond the range of fp16, which ends at 65504; use --compute "
      "bf16",
      parameter->name, *large));
}

}  // namespace

ParameterSource random_parameters(std::uint64_t seed) {
  return [seed](Parameter parameter, std::int64_t begin, std::span<float> values) {
    initial_values(*parameter, seed, begin, values);
  };
}

void Trainer::fill(const ParameterSource& source) {
  State& state = *state_;
  const Dtype compute = state.options.placement.compute;
  for (int p = 0; p < state.partition.part_count(); ++p) {
    const BlockPartition& part = state.partition.part(p);
    ShardStretch values(state.store, p, compute);
    for_stretches(0, part.shard_numel(), [&](std::int64_t begin, std::int64_t numel) {
      const std::int64_t flat = state.shards.rank() * part.shard_numel() + begin;
      values.start(begin, numel);
      for (const Placement& placement : part.placements()) {
        const Overlap own = overlap(flat, numel, placement);
        if (own.numel == 0) continue;
        const std::span<float> piece = values.values().subspan(
            static_cast<std::size_t>(own.in_stretch), static_cast<std::size_t>(own.numel));
        source(placement.parameter, own.in_range, piece);
        if (compute == Dtype::kF16) expect_f16_range(placement.parameter, piece);
      }
      values.store();
    });
  }
}

void Trainer::read(Parameter parameter, std::int64_t begin, std::span<float> values) {
  flush();
  State& state = *state_;
  const int part = part_of(state.model, parameter);
  const BlockPartition& block = state.partition.part(part);
  const std::int64_t first = block.placement(parameter).offset + begin;
  const std::int64_t last = first + static_cast<std::int64_t>(values.size());
  expects(
      begin >= 0 && begin + static_cast<std::int64_t>(values.size()) <= parameter->shape.numel(),
      "the range lies outside the parameter");
  const std::int64_t shard = block.shard_numel();
  ShardStretch masters(state.store, part, state.options.placement.compute);
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
            const Overlap own = overlap(owner * shard + stretch, numel, from, to);
            std::memcpy(piece.data() + own.in_range, masters.values().data() + own.in_stretch,
                        static_cast<std::size_t>(own.numel) * sizeof(float));
          });
    }
    state.shards.broadcast(std::as_writable_bytes(piece), owner);
    state.shards.stream().synchronize();
  }
}

void Trainer::read_beside(std::vector<Parameter> parameters, Dtype precision, ParameterSink sink,
                          std::function<void()> finish) {
  if (reading()) finish_reading();
  state_->reader.start(std::move(parameters), precision, std::move(sink), std::move(finish));
}

void Trainer::finish_reading() {
  if (state_->reader.busy()) flush();
  state_->reader.submit_share(1);
  state_->reader.wait_done();
}

bool Trainer::reading() const { return !state_->reader.done(); }

std::vector<float> Trainer::read(const std::string& name) {
  const Parameter parameter = find_parameter(name);
  std::vector<float> values(static_cast<std::size_t>(parameter->shape.numel()));
  read(parameter, 0, values);
  return values;
}

void Trainer::write(const std::string& name, std::span<const float> values) {
  const Parameter parameter = find_parameter(name);
  if (parameter->frozen) {
    throw UsageError(fmt::format(
        "{} is frozen and keeps the values that its trainer was made with; make another trainer",
        name));
  }
  expects(static_cast<std::int64_t>(values.size()) == parameter->shape.numel(),
          "the values have another size than the parameter");
  finish_reading();
  flush();
  State& state = *state_;
  const int part = part_of(state.model, parameter);
  const BlockPartition& block = state.partition.part(part);
  const std::int64_t base = state.shards.rank() * block.shard_numel();
  const std::int64_t first = block.placement(parameter).offset;
  const std::int64_t last = first + static_cast<std::int64_t>(values.size());
  const std::int64_t from = std::max<std::int64_t>(0, first - base);
  const std::int64_t to = std::min(block.shard_numel(), last - base);
  ShardStretch masters(state.store, part, state.options.placement.compute);
  for_stretches(from, to, [&](std::int64_t stretch, std::int64_t numel) {
    masters.fetch(stretch, numel);
    const Overlap own = overlap(base + stretch, numel, first, last);
    std::memcpy(masters.values().data() + own.in_stretch, values.data() + own.in_range,
                static_cast<std::size_t>(own.numel) * sizeof(float));
    masters.store();
  });
  state.streamer.forget(part);
}

Parameter Trainer::find_parameter(const std::string& name) const {
  const Parameter parameter = state_->model.find(name);
  if (parameter == nullptr) {
    throw UsageError(fmt::format("the model has no parameter named {}", name));
  }
  return parameter;
}

}  // namespace strata
