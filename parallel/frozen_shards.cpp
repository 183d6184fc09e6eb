#include "parallel/frozen_shards.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/group_quantization.h"
#include "core/units.h"
#include "parallel/overlap.h"
#include "parallel/rounding.h"
#include "parallel/stored_range.h"

namespace strata {
namespace {

/// Elements that are converted at once while a shard is filled.
constexpr std::int64_t kPiece = 1 << 20;

/// What a rank's shard holds of a parameter.
Overlap owned(const BlockPartition& part, int rank, const Placement& placement) {
  return overlap(rank * part.shard_numel(), part.shard_numel(), placement);
}

/// The bytes of a quantised parameter that take up these elements.
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t bytes = 0;
};
ByteRange quantized_bytes(const Placement& placement, std::int64_t begin, std::int64_t numel,
                          Dtype compute) {
  const std::size_t all = storage_bytes(*placement.quantized, placement.parameter->shape.numel());
  const std::size_t from = static_cast<std::size_t>(begin) * size_bytes(compute);
  const std::size_t to = from + static_cast<std::size_t>(numel) * size_bytes(compute);
  return {from, std::min(to, all) - from};
}

/// What of the model's file a rank reads of a parameter.
ByteRange file_bytes(const Placement& placement, const Overlap& own, Dtype stored, Dtype compute) {
  if (placement.quantized) {
    return quantized_bytes(placement, own.in_range, own.numel, compute);
  }
  const std::size_t width = size_bytes(stored);
  return {static_cast<std::uint64_t>(own.in_range) * width,
          static_cast<std::uint64_t>(own.numel) * width};
}

/// Quantises what `from` says of a parameter, and copies these of its bytes.
void fill_quantized(const Placement& placement, const ByteRange& range, const ParameterSource& from,
                    std::byte* to) {
  const Dtype dtype = *placement.quantized;
  const std::size_t group = group_bytes(dtype);
  const std::uint64_t first = round_down(range.begin, group);
  std::vector<std::byte> groups(round_up(range.begin + range.bytes, group) - first);
  std::vector<float> values(groups.size() / group * kGroupNumel);
  from(placement.parameter, static_cast<std::int64_t>(first / group) * kGroupNumel, values);
  quantize(values, dtype, groups.data());
  std::memcpy(to, groups.data() + (range.begin - first), range.bytes);
}

}  // namespace

std::vector<std::optional<std::uint64_t>> FrozenShards::in_files(const Partition& partition,
                                                                 int rank, Dtype compute,
                                                                 const ParameterLocator& locator) {
  std::vector<std::optional<std::uint64_t>> result;
  for (int p = 0; p < partition.part_count(); ++p) {
    std::optional<std::uint64_t> bytes = 0;
    for (const Placement& placement : partition.part(p).placements()) {
      const auto stored = locator ? locator(placement.parameter) : std::nullopt;
      if (!stored || !is_kept_as(stored->dtype, placement.quantized.value_or(compute))) {
        bytes.reset();
        break;
      }
      const Overlap own = owned(partition.part(p), rank, placement);
      if (own.numel > 0) *bytes += file_bytes(placement, own, stored->dtype, compute).bytes;
    }
    result.push_back(bytes);
  }
  return result;
}

FrozenShards::FrozenShards(const Partition& partition, int rank, Dtype compute,
                           const GenerationPlan& plan, const Sources& sources, IoEngine& engine,
                           std::unique_ptr<SwapSpace> swap, std::span<std::byte> pool)
    : partition_(partition),
      rank_(rank),
      compute_(compute),
      parts_(plan.homes.size()),
      swap_(std::move(swap)),
      files_(engine, pool),
      load_(make_host_stream("load")),
      finish_(make_host_stream("swap wait")),
      submit_(make_host_stream("swap read")) {
  const auto located = in_files(partition, rank, compute, sources.locator);
  std::uint64_t offset = 0;
  for (int p = 0; p < partition.part_count(); ++p) {
    Part& own = parts_[static_cast<std::size_t>(p)];
    own.home = plan.homes[static_cast<std::size_t>(p)];
    const std::uint64_t bytes = shard_bytes(p);
    if (bytes == 0) continue;
    if (own.home == WeightHome::kMemory) own.memory = allocate_host(bytes);
    own.whole = plan.copies_table && p == partition.block_count();
    own.copied = own.whole || own.home == WeightHome::kSwap;
    if (own.copied) {
      const int shards = own.whole ? partition.ranks() : 1;
      own.offset = offset;
      offset += round_up(bytes * static_cast<std::uint64_t>(shards), kIoAlignment);
    }
    if (own.home == WeightHome::kFile || located[static_cast<std::size_t>(p)]) {
      find(p, sources.locator);
    }
  }
  for (int p = 0; p < partition.part_count(); ++p) {
    const Part& own = part(p);
    if (own.copied) {
      copy_to_swap(p, sources.values);
    } else if (own.home == WeightHome::kMemory && own.stretches.empty()) {
      fill_memory(p, sources.values);
    }
  }
}

void FrozenShards::find(int index, const ParameterLocator& locator) {
  for (const Placement& placement : partition_.part(index).placements()) {
    const Overlap own = owned(partition_.part(index), rank_, placement);
    if (own.numel == 0) continue;
    const StoredParameter stored = locator(placement.parameter).value();
    const ByteRange bytes = file_bytes(placement, own, stored.dtype, compute_);
    parts_[static_cast<std::size_t>(index)].stretches.push_back(
        {files_.open(stored.path), stored.offset + bytes.begin, bytes.bytes,
         placement.quantized ? compute_ : stored.dtype, own.in_stretch, own.numel});
  }
}

void FrozenShards::fill_memory(int index, const ParameterSource& values) {
  const std::int64_t shard = partition_.part(index).shard_numel();
  for (std::int64_t begin = 0; begin < shard; begin += kPiece) {
    const TensorView piece = resident_weights(index).flat(begin, std::min(kPiece, shard - begin));
    fill(partition_.part(index), rank_ * shard + begin, piece, values);
  }
}

void FrozenShards::copy_to_swap(int index, const ParameterSource& values) {
  const Part& own = part(index);
  const BlockPartition& block = partition_.part(index);
  const std::int64_t first = own.whole ? 0 : rank_ * block.shard_numel();
  const std::int64_t all = own.whole ? block.numel() : block.shard_numel();
  const std::size_t width = size_bytes(compute_);
  const Buffer piece = allocate_host(
      round_up(static_cast<std::size_t>(std::min(kPiece, all)) * width, kIoAlignment));
  for (std::int64_t begin = 0; begin < all; begin += kPiece) {
    const TensorView target(piece.data(), compute_, {std::min(kPiece, all - begin)});
    fill(block, first + begin, target, values);
    const std::size_t bytes = round_up(target.bytes(), kIoAlignment);
    swap_->write(own.offset + static_cast<std::uint64_t>(begin) * width, {piece.data(), bytes})
        .wait();
  }
}

/// Elements of the flat buffer from `begin` on.
void FrozenShards::fill(const BlockPartition& block, std::int64_t begin, TensorView target,
                        const ParameterSource& values) const {
  std::vector<float> read;
  for (const Placement& placement : block.placements()) {
    const Overlap found = overlap(begin, target.numel(), placement);
    if (found.numel == 0) continue;
    const TensorView wanted = target.flat(found.in_stretch, found.numel);
    if (placement.quantized) {
      fill_quantized(placement, quantized_bytes(placement, found.in_range, found.numel, compute_),
                     values, static_cast<std::byte*>(wanted.data()));
      continue;
    }
    read.resize(static_cast<std::size_t>(found.numel));
    values(placement.parameter, found.in_range, read);
    round_to({read.data(), Dtype::kF32, {found.numel}}, wanted);
  }
}

std::uint64_t FrozenShards::shard_bytes(int index) const {
  return static_cast<std::uint64_t>(partition_.part(index).shard_numel()) * size_bytes(compute_);
}

FrozenShards::Copy FrozenShards::table_copy() const {
  const int table = partition_.block_count();  // the first block's frozen part
  expects(part(table).whole, "all of the table is on swap");
  return {*swap_, part(table).offset, partition_.part(table), compute_};
}

bool FrozenShards::weights_stay(int part) const {
  return this->part(part).home == WeightHome::kMemory;
}

TensorView FrozenShards::resident_weights(int part) {
  return {this->part(part).memory.data(), compute_, {partition_.part(part).shard_numel()}};
}

std::optional<Event> FrozenShards::load_resident(int part) {
  Part& own = parts_.at(static_cast<std::size_t>(part));
  const bool loads = own.home == WeightHome::kMemory && (own.copied || !own.stretches.empty());
  if (!loads || std::exchange(own.requested, true)) return std::nullopt;
  if (own.copied) return read_swap(part, resident_weights(part), {});
  return read_files(own, resident_weights(part), {});
}

ShardSource::Submitted FrozenShards::submit(const ShardJob& job) {
  expects(!job.decision, "nothing of the model is trained");
  const Part& own = part(job.part);
  if (job.weights.empty()) return {};
  switch (own.home) {
    case WeightHome::kFile:
      return {read_files(own, job.weights, job.weights_free), {}};
    case WeightHome::kSwap:
      return {read_swap(job.part, job.weights, job.weights_free), {}};
    case WeightHome::kMemory:
      break;
  }
  load_->enqueue([&own, job] {
    job.sections_stored.wait();
    for (const Event& event : job.weights_free) event.wait();
    std::memcpy(job.weights.data(), own.memory.data(), job.weights.bytes());
  });
  return {load_->record(), {}};
}

Event FrozenShards::read_files(const Part& part, TensorView weights, std::vector<Event> free) {
  std::vector<FileReader::Range> ranges;
  for (const Stretch& stretch : part.stretches) {
    ranges.push_back(stored_range(stretch.file, stretch.offset, stretch.dtype,
                                  weights.flat(stretch.begin, stretch.numel)));
    ranges.back().bytes = stretch.bytes;
  }
  return files_.read(std::move(ranges), std::move(free));
}

Event FrozenShards::read_swap(int index, TensorView weights, std::vector<Event> free) {
  const Part& own = part(index);
  const std::uint64_t before =
      own.whole ? static_cast<std::uint64_t>(rank_) * shard_bytes(index) : 0;
  const std::uint64_t offset = own.offset + before;
  const HostEvent done;
  // Nothing may leave the lanes by an exception: it would drop the reads behind.
  submit_->enqueue([this, offset, weights, free = std::move(free), done] {
    const std::span<std::byte> memory(static_cast<std::byte*>(weights.data()), weights.bytes());
    Event arrived;
    try {
      for (const Event& event : free) event.wait();
      arrived = swap_->read(offset, memory);
    } catch (...) {
      done.fail(std::current_exception());
      return;
    }
    finish_->enqueue([arrived, done] {
      try {
        arrived.wait();
        done.complete();
      } catch (...) {
        done.fail(std::current_exception());
      }
    });
  });
  return done.event();
}

}  // namespace strata
