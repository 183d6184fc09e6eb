#include "parallel/parameter_streamer.h"

#include <algorithm>
#include <utility>

#include "optimizer/split.h"

namespace strata {
namespace {

std::size_t bytes_of(std::int64_t numel, Dtype dtype) {
  return static_cast<std::size_t>(numel) * size_bytes(dtype);
}

/// The largest sum over a visit's parts of what `numel` says of them.
template <typename Numel>
std::size_t largest_visit(const Plan& plan, Dtype compute, Numel&& numel) {
  std::size_t largest = 0;
  for (const PlannedVisit& visit : plan.visits()) {
    std::size_t bytes = 0;
    for (const int part : visit.parts) bytes += bytes_of(numel(part), compute);
    largest = std::max(largest, bytes);
  }
  return largest;
}

}  // namespace

TensorView Visit::view(const Gathered& gathered, const Placement& placement) {
  const TensorView flat = gathered.flat.flat(placement.offset, placement.numel);
  const Shape& shape = placement.parameter->shape;
  if (placement.quantized) return {flat.data(), *placement.quantized, shape};
  return flat.reshape(shape);
}

ConstTensorView Visit::weight(Parameter parameter) const {
  const auto found = std::ranges::find_if(gathered_, [parameter](const Gathered& gathered) {
    return gathered.block == parameter->block && gathered.frozen == parameter->frozen;
  });
  expects(found != gathered_.end(), "the parameter's block is not part of this visit");
  return view(*found, found->partition->placement(parameter));
}

std::vector<Visit::Staying> Visit::staying() const {
  std::vector<Staying> result;
  for (const Gathered& gathered : gathered_) {
    if (!gathered.stays) continue;
    for (const Placement& placement : gathered.partition->placements()) {
      result.push_back({placement.parameter, view(gathered, placement)});
    }
  }
  return result;
}

std::size_t ParameterStreamer::largest_visit_bytes(const Partition& partition, const Plan& plan,
                                                   Dtype compute) {
  return largest_visit(plan, compute, [&](int part) { return partition.part(part).numel(); });
}

std::size_t ParameterStreamer::staging_bytes(const StreamerOptions& options, const Device& device,
                                             const Partition& partition, const Plan& plan) {
  if (device.is_host_accessible()) return 0;
  const std::size_t one = largest_visit(
      plan, options.compute, [&](int part) { return partition.part(part).shard_numel(); });
  return one * static_cast<std::size_t>(options.prefetch_depth + 1);
}

std::size_t ParameterStreamer::all_blocks_bytes(const Partition& partition, Dtype compute) {
  std::size_t bytes = 0;
  for (int part = 0; part < partition.part_count(); ++part) {
    bytes += bytes_of(partition.part(part).numel(), compute);
  }
  return bytes;
}

ParameterStreamer::ParameterStreamer(const StreamerOptions& options, Device& device,
                                     Communicator& shards, const Partition& partition,
                                     const Plan& plan, ShardSource& source,
                                     std::span<std::byte> memory, std::span<std::byte> staging,
                                     LaneClock& clock)
    : options_(options),
      device_(device),
      shards_(shards),
      partition_(partition),
      plan_(plan),
      source_(source),
      clock_(clock),
      slots_(memory),
      staging_(staging),
      kept_complete_(static_cast<std::size_t>(partition.part_count()), false),
      pending_(kept_complete_.size()),
      stored_(kept_complete_.size()),
      ahead_(kept_complete_.size()),
      copy_(device.is_host_accessible() ? nullptr : device.make_stream()) {
  if (!options.keep_gathered) return;
  std::size_t offset = 0;
  for (int part = 0; part < partition.part_count(); ++part) {
    const std::int64_t numel = partition.part(part).numel();
    expects(offset + bytes_of(numel, options.compute) <= memory.size(),
            "the memory does not hold all gathered blocks");
    kept_.emplace_back(memory.data() + offset, options.compute, Shape{numel});
    offset += bytes_of(numel, options.compute);
  }
}

TensorView ParameterStreamer::shard_of(const Visit::Gathered& gathered) const {
  const std::int64_t shard = gathered.partition->shard_numel();
  return gathered.flat.flat(shards_.rank() * shard, shard);
}

Visit& ParameterStreamer::acquire(int index, int limit) {
  if (index == 0) next_ = static_cast<int>(window_.size());
  const int end = std::min(limit, index + options_.prefetch_depth + 1);
  while (next_ < end && submit()) {
  }
  submit_updates(limit);
  expects(!window_.empty(), "the memory for gathered blocks does not hold the visit");
  Visit& visit = *window_.front();
  expects(visit.planned_ == &plan_.visit(index), "visits must be acquired in plan order");
  submit_gather(visit);
  const bool same_step = index + 1 < plan_.size();
  if (window_.size() > 1 && same_step) submit_gather(*window_[1]);

  const int block = visit.planned_->block;
  {
    const LaneClock::Span span(clock_, LaneTime::kReadWait, TraceLane::kStep, "wait for reads",
                               block);
    for (const Visit::Gathered& gathered : visit.gathered_) gathered.part_ready.wait();
  }
  const Trace::Span span(clock_.trace(), TraceLane::kStep, "wait for gather", block);
  visit.complete_.wait();
  return visit;
}

bool ParameterStreamer::submit() {
  auto visit = std::make_unique<Visit>();
  visit->planned_ = &plan_.visit(next_ % plan_.size());
  for (const int part : visit->planned_->parts) {
    Visit::Gathered gathered;
    gathered.part = part;
    gathered.block = partition_.block_of(part);
    gathered.frozen = partition_.frozen(part);
    gathered.partition = &partition_.part(part);
    visit->gathered_.push_back(gathered);
  }
  if (!place(*visit)) return false;
  ++next_;
  submit_reads(*visit);
  window_.push_back(std::move(visit));
  return true;
}

bool ParameterStreamer::place(Visit& visit) {
  std::size_t bytes = 0;
  std::size_t staging_bytes = 0;
  for (Visit::Gathered& gathered : visit.gathered_) {
    gathered.stays = options_.keep_gathered || in_place(gathered.part);
    if (in_place(gathered.part)) {
      gathered.flat = gathered.host_part = source_.resident_weights(gathered.part);
      continue;
    }
    bytes += bytes_of(gathered.partition->numel(), options_.compute);
    staging_bytes += bytes_of(gathered.partition->shard_numel(), options_.compute);
  }
  if (bytes == 0) return true;
  if (!options_.keep_gathered) {
    std::optional<Slot> slot = slots_.allocate(bytes);
    if (!slot) return false;
    visit.slot_ = std::move(*slot);
  }
  if (copy_) {
    // Its gaps may be too narrow although the sum of them is not: then the visit comes later.
    std::optional<Slot> staging = staging_.allocate(staging_bytes);
    if (!staging) {
      if (!options_.keep_gathered) slots_.release(visit.slot_, visit.slot_.free);
      return false;
    }
    visit.staging_ = std::move(*staging);
  }
  std::byte* device_memory = visit.slot_.memory.data();
  std::byte* host_memory = visit.staging_.memory.data();
  for (Visit::Gathered& gathered : visit.gathered_) {
    if (in_place(gathered.part)) continue;
    if (options_.keep_gathered) {
      gathered.flat = kept_[static_cast<std::size_t>(gathered.part)];
    } else {
      gathered.flat = {device_memory, options_.compute, Shape{gathered.partition->numel()}};
      device_memory += gathered.flat.bytes();
    }
    gathered.host_part = shard_of(gathered);
    if (copy_) {
      gathered.host_part = {host_memory, options_.compute, gathered.host_part.shape()};
      host_memory += gathered.host_part.bytes();
    }
  }
  return true;
}

void ParameterStreamer::submit_reads(Visit& visit) {
  for (Visit::Gathered& gathered : visit.gathered_) {
    const auto part = static_cast<std::size_t>(gathered.part);
    if (const auto loaded = source_.load_resident(gathered.part)) stored_[part] = *loaded;
    ShardJob job;
    job.part = gathered.part;
    job.weights = gathered.host_part;
    bool updates = visit.planned_->updates_before && gathered.part == visit.planned_->block;
    if (updates && source_.weights_stay(gathered.part)) {
      submit_update(gathered.part);
      updates = ahead_[part].has_value();
      if (updates) stored_[part] = *std::exchange(ahead_[part], std::nullopt);
    } else if (updates) {
      job.decision = std::exchange(pending_[part], nullptr);
      updates = job.decision != nullptr;
    }
    if (in_place(gathered.part)) {
      gathered.part_ready = stored_[part];
      continue;
    }
    gathered.kept = kept_complete_[part] && !updates;
    if (gathered.kept) continue;
    job.weights_free = visit.slot_.free;
    job.weights_free.insert(job.weights_free.end(), visit.staging_.free.begin(),
                            visit.staging_.free.end());
    job.weights_loaded = kept_complete_[part] && !copy_;
    job.sections_stored = stored_[part];
    const ShardSource::Submitted submitted = source_.submit(job);
    gathered.part_ready = submitted.done;
    gathered.written = submitted.written;
    if (job.decision) stored_[part] = submitted.done;
    kept_complete_[part] = options_.keep_gathered;
  }
}

void ParameterStreamer::submit_updates(int limit) {
  for (int index = next_; index < limit; ++index) {
    const PlannedVisit& visit = plan_.visit(index % plan_.size());
    // What has to be read queues behind updates, which may wait for the end of this step.
    const bool stay =
        std::ranges::all_of(visit.parts, [&](int part) { return source_.weights_stay(part); });
    if (!stay) return;
    if (visit.updates_before && visit.gathers) submit_update(visit.block);
  }
}

void ParameterStreamer::submit_update(int part) {
  const auto p = static_cast<std::size_t>(part);
  if (!pending_[p]) return;
  ShardJob job;
  job.part = part;
  job.decision = std::exchange(pending_[p], nullptr);
  job.sections_stored = stored_[p];
  ahead_[p] = source_.submit(job).done;
}

void ParameterStreamer::submit_gather(Visit& visit) {
  if (std::exchange(visit.gather_submitted_, true)) return;
  Stream& lane = shards_.stream();
  bool any = false;
  for (const Visit::Gathered& gathered : visit.gathered_) {
    if (gathered.kept) continue;
    any = true;
    if (copy_) {
      copy_->wait(gathered.part_ready);
      device_.copy(gathered.host_part, shard_of(gathered), *copy_);
      lane.wait(copy_->record());
    } else {
      lane.wait(gathered.part_ready);
    }
    if (shards_.size() == 1) continue;
    clock_.on_lane(lane, LaneTime::kCollective, TraceLane::kCollectives, "all-gather",
                   gathered.block, gathered.flat.bytes(),
                   [&] { shards_.all_gather(shard_of(gathered), gathered.flat); });
  }
  if (any) visit.complete_ = lane.record();
}

void ParameterStreamer::release(Visit& visit, Stream& compute) {
  expects(!window_.empty() && &visit == window_.front().get(),
          "only the current visit is released");
  std::vector<Event> last_uses{compute.record()};
  for (const Visit::Gathered& gathered : visit.gathered_) last_uses.push_back(gathered.written);
  if (!visit.staging_.memory.empty()) staging_.release(visit.staging_, last_uses);
  if (!visit.slot_.memory.empty()) slots_.release(visit.slot_, std::move(last_uses));
  window_.pop_front();
}

void ParameterStreamer::set_pending(const std::shared_ptr<const StepDecision>& decision) {
  std::ranges::fill(pending_, decision);
}

void ParameterStreamer::settle() const {
  for (const Event& event : stored_) event.wait();
}

void ParameterStreamer::update_now(Visit& visit,
                                   const std::shared_ptr<const StepDecision>& decision,
                                   const Event& gradient_at_rest) {
  const auto own =
      std::ranges::find(visit.gathered_, visit.planned_->block, &Visit::Gathered::part);
  const int part = visit.planned_->block;  // the trainable one
  ShardJob job;
  job.part = part;
  job.decision = decision;
  job.gradient_at_rest = gradient_at_rest;
  job.sections_stored = stored_[static_cast<std::size_t>(part)];
  // Where products read hi, the weights in the host's memory are it, and become the new one. Kept
  // weights are on the device only, and weights that were joined are of no use any more.
  const bool holds_hi =
      own != visit.gathered_.end() && reads_hi(options_.compute) && !(copy_ && own->kept);
  if (holds_hi) {
    job.weights = own->host_part;
    job.weights_loaded = true;
  }
  const ShardSource::Submitted submitted = source_.submit(job);
  stored_[static_cast<std::size_t>(part)] = submitted.done;
  if (holds_hi) own->written = submitted.written;
  kept_complete_[static_cast<std::size_t>(part)] = false;
}

}  // namespace strata
