#include "parallel/master_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace strata {

MasterReader::MasterReader(const Model& model, const Partition& partition, ShardStore& store,
                           Dtype compute, Communicator& shards, bool sinks)
    : model_(model),
      partition_(partition),
      store_(store),
      compute_(compute),
      shards_(shards),
      sink_lane_(sinks ? make_host_stream("read sink") : nullptr),
      fetch_lane_(make_host_stream("read beside")) {}

void MasterReader::start(std::vector<Parameter> parameters, Dtype precision, ParameterSink sink,
                         std::function<void()> finish) {
  expects(!busy(), "an earlier reading is not finished");
  parameters_ = std::move(parameters);
  precision_ = precision;
  if (sink_lane_) {
    sink_ = std::move(sink);
    finish_ = std::move(finish);
  }
  fetch_lane_->enqueue([this] { stretch_.reset(); });  // of another precision
  next_ = 0;
  begin_ = 0;
  left_ = 0;
  for (const Parameter parameter : parameters_) left_ += parameter->shape.numel();
  if (parameters_.empty()) submit_finish();
}

void MasterReader::submit_share(int of) {
  if (!busy()) return;
  for (std::int64_t share = (left_ + of - 1) / of; share > 0 && busy();) share -= submit_piece();
  if (!busy()) submit_finish();
}

/// @return its elements
std::int64_t MasterReader::submit_piece() {
  const Parameter parameter = parameters_[next_];
  const int part = part_of(model_, parameter);
  const BlockPartition& block = partition_.part(part);
  const std::int64_t shard = block.shard_numel();
  const std::int64_t first = block.placement(parameter).offset + begin_;
  const int owner = static_cast<int>(first / shard);
  const std::int64_t from = first - owner * shard;  // in the owner's shard
  const std::int64_t stretch = from / kShardAlignment * kShardAlignment;
  const std::int64_t stretch_end = std::min(stretch + ShardStretch::kNumel, shard);
  const std::int64_t numel = std::min(stretch_end - from, parameter->shape.numel() - begin_);

  Slot& slot = slots_[turn_++ % kSlots];
  slot.values.resize(ShardStretch::kNumel);  // once: no lane uses the memory before
  const std::span<float> values(slot.values.data(), static_cast<std::size_t>(numel));
  if (owner == shards_.rank()) {
    fetch_lane_->wait(slot.free);
    fetch_lane_->enqueue([this, part, from, stretch, values, precision = precision_] {
      if (!stretch_ || stretch_->part() != part) {
        stretch_.emplace(store_, part, compute_, precision);
      }
      const auto numel_read = from - stretch + static_cast<std::int64_t>(values.size());
      stretch_->fetch(stretch, round_up(numel_read, kShardAlignment));
      std::memcpy(values.data(), stretch_->values().data() + (from - stretch), values.size_bytes());
    });
    read_ = fetch_lane_->record();
  } else {
    read_ = slot.free;
  }
  if (shards_.size() > 1) {
    shards_.stream().wait(read_);
    shards_.broadcast(std::as_writable_bytes(values), owner);
    read_ = shards_.stream().record();
  }
  slot.free = read_;
  if (sink_lane_) {
    sink_lane_->wait(read_);
    sink_lane_->enqueue([this, parameter, begin = begin_, values] {
      try {
        sink_(parameter, begin, values);
      } catch (...) {
        drop();
        throw;
      }
    });
    slot.free = sink_lane_->record();
  }
  begin_ += numel;
  left_ -= numel;
  if (begin_ == parameter->shape.numel()) {
    ++next_;
    begin_ = 0;
  }
  return numel;
}

void MasterReader::submit_finish() {
  if (!sink_lane_) {
    finished_ = read_;
    return;
  }
  sink_lane_->enqueue([this] {
    try {
      finish_();
    } catch (...) {
      drop();
      throw;
    }
    drop();
  });
  finished_ = sink_lane_->record();
}

/// Sink and finish, with all they hold.
void MasterReader::drop() {
  sink_ = nullptr;
  finish_ = nullptr;
}

bool MasterReader::done() const {
  if (busy() || !finished_.ready()) return false;
  finished_.wait();
  return true;
}

}  // namespace strata
