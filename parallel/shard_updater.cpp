#include "parallel/shard_updater.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "optimizer/split.h"

namespace strata {

struct ShardUpdater::Chunk {
  std::int64_t begin = 0;  // elements into the shard
  std::int64_t numel = 0;
  PoolBlock memory;  // of all sections that come from swap: in one piece, so that a pool that was
                     // given everything back has room for it
  Lease hi, lo, m, v, gradient;
  std::uint64_t submitted_ns = 0;  // when the reads, later the writes, were
  HostEvent fetched;               // all reads were submitted
  HostEvent updated;               // all writes were submitted
  std::vector<Event> writes;

  void drop() {
    for (Lease* lease : {&hi, &lo, &m, &v, &gradient}) *lease = Lease();
    memory.reset();
  }
};

struct ShardUpdater::Job {
  ShardJob order;
  std::vector<Chunk> chunks;

  /// Makes whoever waits for the rest of a broken job see the cause.
  void fail(std::size_t from, HostEvent Chunk::*event) {
    for (std::size_t c = from; c < chunks.size(); ++c) {
      (chunks[c].*event).fail(std::current_exception());
    }
  }
};

ShardUpdater::ShardUpdater(const Partition& partition, int shard_rank, Dtype compute,
                           const UpdateRule& rule, ShardStore& store, std::span<std::byte> pool,
                           int threads, LaneClock& clock)
    : partition_(partition),
      rank_(shard_rank),
      compute_(compute),
      rule_(rule),
      store_(store),
      pool_(pool),
      threads_(threads),
      clock_(clock),
      read_(make_host_stream("read")),
      update_(make_host_stream("update")),
      write_(make_host_stream("write")),
      load_(make_host_stream("load")) {}

ShardUpdater::~ShardUpdater() { pool_.close(); }

std::size_t ShardUpdater::chunk_bytes(const ShardLayout& layout) {
  std::size_t bytes = 0;
  for (const std::size_t element : layout.element_bytes) bytes += element;
  return bytes * static_cast<std::size_t>(kChunkNumel);
}

bool ShardUpdater::weights_stay(int block) const {
  return store_.resident({block, Section::kHi}) &&
         (compute_ == Dtype::kBf16 || store_.resident({block, Section::kLo}));
}

TensorView ShardUpdater::resident_weights(int block) {
  const std::int64_t shard = partition_.block(block).shard_numel();
  const Lease hi = store_.fetch({block, Section::kHi}, 0, shard, pool_);
  return {hi.memory().data(), Dtype::kBf16, {shard}};
}

ShardUpdater::Submitted ShardUpdater::submit(const ShardJob& order) {
  if (!order.decision && weights_stay(order.block)) return submit_load(order);
  auto job = std::make_shared<Job>();
  job->order = order;
  const std::int64_t shard = partition_.block(order.block).shard_numel();
  job->chunks.resize(static_cast<std::size_t>((shard + kChunkNumel - 1) / kChunkNumel));
  for (std::size_t c = 0; c < job->chunks.size(); ++c) {
    job->chunks[c].begin = static_cast<std::int64_t>(c) * kChunkNumel;
    job->chunks[c].numel = std::min(kChunkNumel, shard - job->chunks[c].begin);
  }
  read_->enqueue([this, job] { read(*job); });
  update_->enqueue([this, job] { update(*job); });
  const Event updated = update_->record();
  write_->enqueue([this, job] { write(*job); });
  return {updated, updated, write_->record()};
}

ShardUpdater::Submitted ShardUpdater::submit_load(const ShardJob& order) {
  load_->enqueue([this, order] { load(order); });
  return {load_->record(), {}, {}};
}

void ShardUpdater::load(const ShardJob& order) {
  for (const Event& event : order.weights_free) event.wait();
  order.sections_stored.wait();
  const std::int64_t shard = order.weights.numel();
  const Lease hi = store_.fetch({order.block, Section::kHi}, 0, shard, pool_);
  if (compute_ == Dtype::kBf16) {
    std::memcpy(order.weights.data(), hi.memory().data(), hi.memory().size());
    return;
  }
  const Lease lo = store_.fetch({order.block, Section::kLo}, 0, shard, pool_);
  join(hi.as<std::uint16_t>(), lo.as<std::int16_t>(), shard, order.weights.as<float>());
}

void ShardUpdater::read(Job& job) {
  std::size_t c = 0;
  try {
    for (const Event& event : job.order.weights_free) event.wait();
    job.order.sections_stored.wait();
    for (; c < job.chunks.size(); ++c) {
      read_chunk(job, job.chunks[c]);
      job.chunks[c].fetched.complete();
    }
  } catch (...) {
    job.fail(c, &Chunk::fetched);
    throw;
  }
}

namespace {

/// One span per lane at a time: transfers overlap, so each is shown from the end of the one before.
void trace_transfer(Trace& trace, TraceLane lane, const char* what, std::uint64_t submitted_ns,
                    std::uint64_t& last_ns, int block, std::uint64_t bytes) {
  if (!trace.enabled() || bytes == 0) return;
  const std::uint64_t now = Trace::now_ns();
  trace.add(lane, what, std::max(submitted_ns, last_ns), now, block, bytes);
  last_ns = now;
}

}  // namespace

std::uint64_t ShardUpdater::swapped_bytes(const Chunk& chunk, int block) const {
  std::uint64_t bytes = 0;
  const std::array<const Lease*, kSectionCount> leases{&chunk.hi, &chunk.lo, &chunk.m, &chunk.v,
                                                       &chunk.gradient};
  for (int s = 0; s < kSectionCount; ++s) {
    if (store_.resident({block, static_cast<Section>(s)})) continue;
    bytes += leases[static_cast<std::size_t>(s)]->memory().size();
  }
  return bytes;
}

void ShardUpdater::read_chunk(const Job& job, Chunk& chunk) {
  const auto begin = std::chrono::steady_clock::now();
  chunk.submitted_ns = Trace::now_ns();
  const auto key = [&](Section section) { return SectionKey{job.order.block, section}; };
  const bool in_place = compute_ == Dtype::kBf16 && !job.order.weights.empty();
  const auto bytes = [&](Section section) {
    const std::size_t element = store_.layout().element_bytes[static_cast<std::size_t>(section)];
    const std::size_t all = element * static_cast<std::size_t>(chunk.numel);
    return (all + MemoryPool::kAlignment - 1) / MemoryPool::kAlignment * MemoryPool::kAlignment;
  };
  std::size_t needed = 0;
  for (int s = 0; s < kSectionCount; ++s) {
    const auto section = static_cast<Section>(s);
    const bool wanted = section == Section::kHi   ? !in_place
                        : section == Section::kLo ? !in_place || job.order.decision
                                                  : job.order.decision != nullptr;
    if (wanted && store_.keeps(key(section)) && !store_.resident(key(section))) {
      needed += bytes(section);
    }
  }
  if (needed > 0) chunk.memory = pool_.acquire(needed);
  std::size_t used = 0;
  const auto fetch = [&](Section section) {
    if (store_.resident(key(section))) {
      return store_.fetch(key(section), chunk.begin, chunk.numel, pool_);
    }
    const std::size_t element = store_.layout().element_bytes[static_cast<std::size_t>(section)];
    const std::span<std::byte> part =
        chunk.memory.memory().subspan(used, element * static_cast<std::size_t>(chunk.numel));
    used += bytes(section);
    return store_.fetch_into(key(section), chunk.begin, chunk.numel, part);
  };
  if (in_place) {
    const TensorView part = job.order.weights.flat(chunk.begin, chunk.numel);
    const std::span<std::byte> memory(static_cast<std::byte*>(part.data()), part.bytes());
    if (job.order.weights_loaded) {
      chunk.hi = store_.adopt(key(Section::kHi), chunk.begin, chunk.numel, memory);
    } else {
      chunk.hi = store_.fetch_into(key(Section::kHi), chunk.begin, chunk.numel, memory);
    }
  } else {
    chunk.hi = fetch(Section::kHi);
  }
  if (!in_place || job.order.decision) chunk.lo = fetch(Section::kLo);
  if (!job.order.decision) return;
  if (store_.keeps(key(Section::kM))) chunk.m = fetch(Section::kM);
  if (store_.keeps(key(Section::kV))) chunk.v = fetch(Section::kV);
  if (!store_.resident(key(Section::kGradient))) job.order.gradient_at_rest.wait();
  chunk.gradient = fetch(Section::kGradient);
  // Submission takes no time; room in the pool does, and comes when older chunks are written.
  clock_.add(LaneTime::kWriteWait,
             std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

void ShardUpdater::update(Job& job) {
  std::size_t c = 0;
  try {
    for (; c < job.chunks.size(); ++c) {
      Chunk& chunk = job.chunks[c];
      chunk.fetched.event().wait();
      for (const Lease* lease : {&chunk.hi, &chunk.lo, &chunk.m, &chunk.v, &chunk.gradient}) {
        lease->ready().wait();
      }
      trace_transfer(clock_.trace(), TraceLane::kRead, "read", chunk.submitted_ns, last_read_ns_,
                     job.order.block, swapped_bytes(chunk, job.order.block));
      update_chunk(job, chunk);
      chunk.updated.complete();
    }
  } catch (...) {
    job.fail(c, &Chunk::updated);
    throw;
  }
}

void ShardUpdater::update_chunk(const Job& job, Chunk& chunk) {
  const std::shared_ptr<const StepDecision>& decision = job.order.decision;
  if (decision) {
    decision->known.event().wait();
    job.order.gradient_at_rest.wait();
  }
  const LaneClock::Span span(clock_, LaneTime::kUpdate, TraceLane::kUpdate, "update",
                             job.order.block, chunk.hi.memory().size());
  if (decision && !decision->skip) {
    const std::vector<UpdateSegment> segments =
        partition_.block(job.order.block).segments(rank_, chunk.begin, chunk.begin + chunk.numel);
    const std::size_t gradient_bytes =
        chunk.gradient.memory().size() / static_cast<std::size_t>(chunk.numel);
    rule_.update({.numel = chunk.numel,
                  .hi = chunk.hi.as<std::uint16_t>(),
                  .lo = chunk.lo.as<std::int16_t>(),
                  .m = chunk.m.as<float>(),
                  .v = chunk.v.as<float>(),
                  .gradient = chunk.gradient.memory().data(),
                  .gradient_dtype = gradient_bytes == 2 ? Dtype::kBf16 : Dtype::kF32},
                 segments, decision->step, threads_);
    chunk.submitted_ns = Trace::now_ns();
    for (const Lease* lease : {&chunk.hi, &chunk.lo, &chunk.m, &chunk.v}) {
      if (*lease) chunk.writes.push_back(store_.store(*lease));
    }
  }
  if (compute_ == Dtype::kF32 && !job.order.weights.empty()) {
    join(chunk.hi.as<std::uint16_t>(), chunk.lo.as<std::int16_t>(), chunk.numel,
         job.order.weights.flat(chunk.begin, chunk.numel).as<float>());
  }
}

void ShardUpdater::write(Job& job) {
  for (Chunk& chunk : job.chunks) {
    chunk.updated.event().wait();
    for (const Event& done : chunk.writes) done.wait();
    if (!chunk.writes.empty()) {
      trace_transfer(clock_.trace(), TraceLane::kWrite, "write", chunk.submitted_ns, last_write_ns_,
                     job.order.block, swapped_bytes(chunk, job.order.block));
    }
    chunk.drop();
  }
}

}  // namespace strata
