#include "parallel/partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/units.h"

namespace strata {

int part_of(const Model& model, Parameter parameter) {
  return parameter->block + (parameter->frozen ? model.block_count() : 0);
}

namespace {

Placement place(const ParameterSpec& parameter, const std::optional<WeightStorage>& storage) {
  const std::int64_t numel = parameter.shape.numel();
  Placement placement{.parameter = &parameter, .offset = 0, .numel = numel};
  const Dtype dtype = storage && parameter.frozen ? storage->of(parameter) : Dtype::kF32;
  if (!is_quantized(dtype)) return placement;
  placement.quantized = dtype;
  const auto unit = static_cast<std::int64_t>(size_bytes(storage->compute));
  placement.numel = (static_cast<std::int64_t>(storage_bytes(dtype, numel)) + unit - 1) / unit;
  return placement;
}

}  // namespace

BlockPartition::BlockPartition(const Block& block, int ranks, bool frozen,
                               const std::optional<WeightStorage>& storage)
    : ranks_(ranks) {
  for (const bool row_tiled : {false, true}) {
    for (const auto& spec : block.parameters()) {
      if (spec->row_tiled != row_tiled || spec->frozen != frozen) continue;
      Placement placement = place(*spec, storage);
      placement.offset = end_;
      parameter_numel_ += placement.numel;
      end_ = round_up(end_ + placement.numel, kParameterAlignment);
      placements_.push_back(placement);
    }
    if (!row_tiled) dense_numel_ = end_;
  }
  shard_numel_ = round_up((end_ + ranks - 1) / ranks, kShardAlignment);
}

const Placement& BlockPartition::placement(Parameter parameter) const {
  const auto found = std::ranges::find(placements_, parameter, &Placement::parameter);
  expects(found != placements_.end(), "the parameter belongs to another part");
  return *found;
}

std::vector<UpdateSegment> BlockPartition::segments(int rank, std::int64_t begin,
                                                    std::int64_t end) const {
  std::vector<UpdateSegment> result;
  const std::int64_t first = rank * shard_numel_ + begin;
  const std::int64_t last = rank * shard_numel_ + end;
  for (const Placement& placement : placements_) {
    const std::int64_t from = std::max(first, placement.offset);
    const std::int64_t to = std::min(last, placement.offset + placement.numel);
    if (from >= to) continue;
    result.push_back({from - first, to - first, placement.parameter->decay});
  }
  return result;
}

Partition::Partition(const Model& model, int ranks, const std::optional<WeightStorage>& storage)
    : ranks_(ranks) {
  if (ranks > model.parameter_count()) {
    throw UsageError(fmt::format("{} ranks are more than the model's {} parameters: start fewer",
                                 ranks, model.parameter_count()));
  }
  for (const bool frozen : {false, true}) {
    for (int b = 0; b < model.block_count(); ++b) {
      parts_.emplace_back(model.block(b), ranks, frozen, storage);
    }
  }
}

}  // namespace strata
