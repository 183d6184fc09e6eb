#include "parallel/gradient_pipeline.h"

#include <algorithm>
#include <cstring>

#include "parallel/rounding.h"

namespace strata {
namespace {

std::size_t fp32_bytes(std::int64_t numel) {
  return static_cast<std::size_t>(numel) * sizeof(float);
}

bool is_borrowed(const Model& model, int block) {
  for (int b = block + 1; b < model.block_count(); ++b) {
    for (const Parameter parameter : model.block(b).borrowed()) {
      if (parameter->block == block && !parameter->frozen) return true;
    }
  }
  return false;
}

}  // namespace

GradientPipeline::GradientPipeline(Device& device, Stream& compute, Communicator& shards,
                                   const Model& model, const Partition& partition,
                                   ShardStore& store, Dtype resting, std::span<std::byte> memory,
                                   std::span<std::byte> staging, LaneClock& clock)
    : device_(device),
      compute_(compute),
      shards_(shards),
      partition_(partition),
      store_(store),
      resting_(resting),
      clock_(clock),
      memory_(memory.data()),
      slots_(memory),
      mirror_(device.is_host_accessible() ? Buffer() : allocate_host(memory.size())),
      staging_(staging),
      shared_(static_cast<std::size_t>(model.block_count())),
      assemblies_(shared_.size()),
      norms_(shared_.size()),
      copy_(device.is_host_accessible() ? nullptr : device.make_stream()),
      spill_(make_host_stream("spill")),
      lane_(make_host_stream("gradients")) {
  for (int b = 0; b < model.block_count(); ++b) {
    if (!is_borrowed(model, b)) continue;
    shared_[static_cast<std::size_t>(b)] =
        allocate_host(fp32_bytes(partition.part(b).shard_numel()));  // zero pages
  }
}

GradientPipeline::~GradientPipeline() { staging_.close(); }

std::size_t GradientPipeline::largest_bytes(const Model& model, const Partition& partition) {
  std::size_t largest = 0;
  for (int b = 0; b < model.block_count(); ++b) {
    const BlockPartition& block = partition.part(b);
    std::size_t bytes = fp32_bytes(block.row_tiled() ? block.dense_numel() : block.numel());
    std::size_t tile = 0;
    for (const auto& spec : model.block(b).parameters()) {
      if (!spec->row_tiled || spec->frozen) continue;
      const std::int64_t rows = std::min(kRowTile, spec->shape[0]);
      tile = std::max(tile, fp32_bytes(rows * spec->shape[1]));
    }
    // A head that borrows its table has the tiles of the table's owner open in its visit.
    for (const Parameter parameter : model.block(b).borrowed()) {
      if (parameter->frozen) continue;
      const std::int64_t rows = std::min(kRowTile, parameter->shape[0]);
      tile = std::max(tile, fp32_bytes(rows * parameter->shape[1]));
    }
    largest = std::max(largest, bytes + tile + 2 * MemoryPool::kAlignment);
  }
  return largest;
}

std::size_t GradientPipeline::staging_bytes(const ShardLayout& layout, const Residency& residency) {
  std::size_t largest = 0;
  for (int b = 0; b < residency.blocks(); ++b) {
    const SectionKey key{b, Section::kGradient};
    if (!residency.resident(key)) largest = std::max(largest, layout.bytes(key));
  }
  return largest;
}

std::size_t GradientPipeline::shared_bytes(const Model& model, const Partition& partition) {
  std::size_t bytes = 0;
  for (int b = 0; b < model.block_count(); ++b) {
    if (is_borrowed(model, b)) bytes += fp32_bytes(partition.part(b).shard_numel());
  }
  return bytes;
}

GradientPipeline::Open GradientPipeline::open(int block, std::int64_t begin, std::int64_t numel) {
  Open result{.block = block, .begin = begin, .numel = numel, .slot = {}, .accumulator = {}};
  std::optional<Slot> slot = slots_.allocate(fp32_bytes(numel));
  expects(slot.has_value(), "the memory for gradients does not hold the visit's");
  result.slot = std::move(*slot);
  {
    const Trace::Span span(clock_.trace(), TraceLane::kStep, "wait for reduce", block);
    for (const Event& event : result.slot.free) compute_.wait(event);
  }
  result.accumulator = {result.slot.memory.data(), Dtype::kF32, Shape{numel}};
  device_.ops().fill_zero(result.accumulator, compute_);
  return result;
}

TensorView GradientPipeline::begin_dense(int block) {
  const BlockPartition& partition = partition_.part(block);
  const std::int64_t numel = partition.row_tiled() ? partition.dense_numel() : partition.numel();
  if (numel == 0) return {};
  dense_ = open(block, 0, numel);
  return dense_.accumulator;
}

void GradientPipeline::finish_dense() {
  if (dense_.block >= 0) send(dense_);
}

TensorView GradientPipeline::begin_rows(Parameter parameter, std::int64_t row_begin,
                                        std::int64_t rows) {
  const std::int64_t columns = parameter->shape[1];
  const std::int64_t begin =
      partition_.part(parameter->block).placement(parameter).offset + row_begin * columns;
  rows_ = open(parameter->block, begin, rows * columns);
  return rows_.accumulator.reshape({rows, columns});
}

void GradientPipeline::finish_rows() { send(rows_); }

void GradientPipeline::send(Open& open) {
  const std::int64_t shard = partition_.part(open.block).shard_numel();
  Stream& lane = shards_.stream();
  lane.wait(compute_.record());
  if (open.numel == shard * shards_.size()) {
    const TensorView own = open.accumulator.flat(shards_.rank() * shard, shard);
    clock_.on_lane(lane, LaneTime::kCollective, TraceLane::kCollectives, "reduce-scatter",
                   open.block, open.accumulator.bytes(),
                   [&] { shards_.reduce_scatter_sum(open.accumulator, own); });
    hand_over(open.block, own, 0);
  } else {
    const std::int64_t end = open.begin + open.numel;
    for (int owner = 0; owner < shards_.size(); ++owner) {
      const std::int64_t from = std::max(open.begin, owner * shard);
      const std::int64_t to = std::min(end, (owner + 1) * shard);
      if (from >= to) continue;
      const TensorView piece = open.accumulator.flat(from - open.begin, to - from);
      clock_.on_lane(lane, LaneTime::kCollective, TraceLane::kCollectives, "reduce", open.block,
                     piece.bytes(), [&] { shards_.reduce_sum(piece, piece, owner); });
      if (owner == shards_.rank()) hand_over(open.block, piece, from - owner * shard);
    }
  }
  slots_.release(open.slot, {lane.record(), lane_->record()});
  open = Open();
}

/// `piece` of memory_ is this rank's, once the collectives submitted so far are done.
void GradientPipeline::hand_over(int block, TensorView piece, std::int64_t shard_begin) {
  Event complete = shards_.stream().record();
  if (copy_) {
    const std::ptrdiff_t offset = static_cast<std::byte*>(piece.data()) - memory_;
    const TensorView on_host(mirror_.data() + offset, piece.dtype(), piece.shape());
    copy_->wait(complete);
    device_.copy(piece, on_host, *copy_);
    complete = copy_->record();
    piece = on_host;
  }
  lane_->wait(complete);
  lane_->enqueue([this, block, piece, shard_begin] { take_piece(block, piece, shard_begin); });
}

Lease& GradientPipeline::assembly(int block) {
  Lease& lease = assemblies_[static_cast<std::size_t>(block)];
  if (lease) return lease;
  lease = store_.reserve({block, Section::kGradient}, 0, partition_.part(block).shard_numel(),
                         staging_);
  // What no piece covers (padding) counts as zero; resident memory has never been anything else.
  if (!store_.resident({block, Section::kGradient})) {
    std::memset(lease.memory().data(), 0, lease.memory().size());
  }
  return lease;
}

void GradientPipeline::take_piece(int block, ConstTensorView piece, std::int64_t shard_begin) {
  const Trace::Span span(clock_.trace(), TraceLane::kCopy, "round gradient", block, piece.bytes());
  const Buffer& shared = shared_[static_cast<std::size_t>(block)];
  if (shared.bytes() > 0) {
    const TensorView sum(shared.data(), Dtype::kF32, {partition_.part(block).shard_numel()});
    add_to(piece, sum.flat(shard_begin, piece.numel()));
    return;
  }
  const TensorView section(assembly(block).memory().data(), resting_,
                           {partition_.part(block).shard_numel()});
  round_to(piece, section.flat(shard_begin, piece.numel()));
}

void GradientPipeline::settle(int block) {
  const auto b = static_cast<std::size_t>(block);
  const SectionKey key{block, Section::kGradient};
  auto lease = std::make_shared<Lease>(std::move(assembly(block)));
  assemblies_[b] = Lease();
  const TensorView section(lease->memory().data(), resting_,
                           {partition_.part(block).shard_numel()});
  const Buffer& shared = shared_[b];
  if (shared.bytes() > 0) {
    const TensorView sum(shared.data(), Dtype::kF32, section.shape());
    round_to(sum, section);
    std::memset(shared.data(), 0, shared.bytes());
  }
  norms_[b] = {};
  add_to_norm(norms_[b], section, 0, 1);
  const Event written = store_.store(*lease);
  // The closure keeps the staging memory until the bytes have left it.
  if (!store_.resident(key)) spill_->enqueue([written, lease] { written.wait(); });
}

Event GradientPipeline::finish_block(int block) {
  lane_->enqueue([this, block] { settle(block); });
  return lane_->record();
}

GradientNorm GradientPipeline::collect() {
  lane_->synchronize();
  spill_->synchronize();
  GradientNorm total;
  for (GradientNorm& norm : norms_) {
    total.sum_of_squares += norm.sum_of_squares;
    total.finite = total.finite && norm.finite;
    norm = {};
  }
  return total;
}

}  // namespace strata
