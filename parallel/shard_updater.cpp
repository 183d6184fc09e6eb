#include "parallel/shard_updater.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "core/units.h"

namespace strata {

struct ShardUpdater::Chunk {
  std::int64_t begin = 0;  // elements into the shard
  std::int64_t numel = 0;
  PoolBlock memory;  // of all sections that come from swap: in one piece, so that a pool that was
                     // given everything back has room for it
  std::array<Lease, kSectionCount> leases;  // by section; without memory where nobody wants it
  std::uint64_t submitted_ns = 0;           // when the reads, later the writes, were
  HostEvent fetched;                        // all reads were submitted
  HostEvent updated;                        // all writes were submitted
  std::vector<Event> writes;

  Lease& operator[](Section section) { return leases[static_cast<std::size_t>(section)]; }
  void drop() {
    leases = {};
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
  std::size_t bytes = layout.element_bytes[static_cast<std::size_t>(Section::kGradient)];
  for (const Section section : kStateSections) {
    bytes += layout.element_bytes[static_cast<std::size_t>(section)];
  }
  return bytes * static_cast<std::size_t>(kChunkNumel);
}

bool ShardUpdater::weights_stay(int part) const {
  return store_.resident(store_.layout().weights(part)) &&
         (one_section(part) || store_.resident({part, Section::kLo}));
}

TensorView ShardUpdater::resident_weights(int part) {
  return {store_.memory(store_.layout().weights(part)).data(),
          Dtype::kBf16,
          {partition_.part(part).shard_numel()}};
}

ShardUpdater::Submitted ShardUpdater::submit(const ShardJob& order) {
  if (!order.decision && weights_stay(order.part)) return submit_load(order);
  auto job = std::make_shared<Job>();
  job->order = order;
  const std::int64_t shard = partition_.part(order.part).shard_numel();
  job->chunks.resize(static_cast<std::size_t>((shard + kChunkNumel - 1) / kChunkNumel));
  for (std::size_t c = 0; c < job->chunks.size(); ++c) {
    job->chunks[c].begin = static_cast<std::int64_t>(c) * kChunkNumel;
    job->chunks[c].numel = std::min(kChunkNumel, shard - job->chunks[c].begin);
  }
  read_->enqueue([this, job] { read(*job); });
  update_->enqueue([this, job] { update(*job); });
  const Event updated = update_->record();
  write_->enqueue([this, job] { write(*job); });
  return {updated, write_->record()};
}

ShardUpdater::Submitted ShardUpdater::submit_load(const ShardJob& order) {
  load_->enqueue([this, order] { load(order); });
  return {load_->record(), {}};
}

void ShardUpdater::load(const ShardJob& order) {
  for (const Event& event : order.weights_free) event.wait();
  order.sections_stored.wait();
  const std::span<const std::byte> hi = store_.memory(store_.layout().weights(order.part));
  if (one_section(order.part)) {
    std::memcpy(order.weights.data(), hi.data(), hi.size());
    return;
  }
  const std::span<const std::byte> lo = store_.memory({order.part, Section::kLo});
  join(reinterpret_cast<const std::uint16_t*>(hi.data()),
       reinterpret_cast<const std::int16_t*>(lo.data()), order.weights);
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

std::uint64_t ShardUpdater::swapped_bytes(const Chunk& chunk, int part) const {
  std::uint64_t bytes = 0;
  for (int s = 0; s < kSectionCount; ++s) {
    if (store_.resident({part, static_cast<Section>(s)})) continue;
    bytes += chunk.leases[static_cast<std::size_t>(s)].memory().size();
  }
  return bytes;
}

std::size_t ShardUpdater::pool_bytes(SectionKey key, std::int64_t numel) const {
  if (store_.resident(key)) return 0;
  return round_up(store_.layout().element(key) * static_cast<std::size_t>(numel),
                  MemoryPool::kAlignment);
}

void ShardUpdater::take_room(const Job& job, Chunk& chunk, std::size_t bytes) {
  // What waits for the decision keeps the pool full until the step ends: that is not the drive's.
  const bool counts = !job.order.decision || job.order.decision->known.event().ready();
  const auto begin = std::chrono::steady_clock::now();
  chunk.memory = pool_.acquire(bytes);
  if (!counts) return;
  clock_.add(LaneTime::kWriteWait,
             std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

bool ShardUpdater::reads_in_place(const Job& job) const {
  return !job.order.weights.empty() && one_section(job.order.part);
}

void ShardUpdater::read_chunk(const Job& job, Chunk& chunk) {
  const auto key = [&](Section section) { return SectionKey{job.order.part, section}; };
  std::vector<Section> wanted;
  const bool in_place = reads_in_place(job);
  if (!in_place) wanted = {Section::kHi, Section::kLo};
  if (job.order.decision) {
    if (in_place) wanted.push_back(Section::kLo);
    for (const Section section : {Section::kM, Section::kV, Section::kGradient}) {
      if (store_.keeps(key(section))) wanted.push_back(section);
    }
  }
  std::size_t needed = 0;
  for (const Section section : wanted) needed += pool_bytes(key(section), chunk.numel);
  if (needed > 0) take_room(job, chunk, needed);
  chunk.submitted_ns = Trace::now_ns();
  if (in_place) read_weights(job, chunk);
  std::span<std::byte> room = chunk.memory.memory();
  for (const Section section : wanted) {
    const std::size_t bytes = pool_bytes(key(section), chunk.numel);
    if (bytes == 0) {
      chunk[section] = store_.fetch(key(section), chunk.begin, chunk.numel, pool_);
      continue;
    }
    if (section == Section::kGradient) {
      job.order.decision->known.event().wait();
      job.order.gradient_at_rest.wait();
    }
    const std::size_t element = store_.layout().element(key(section));
    chunk[section] = store_.fetch_into(key(section), chunk.begin, chunk.numel,
                                       room.first(element * static_cast<std::size_t>(chunk.numel)));
    room = room.subspan(bytes);
  }
}

/// Weights straight into the memory of the visit.
void ShardUpdater::read_weights(const Job& job, Chunk& chunk) {
  const SectionKey key = store_.layout().weights(job.order.part);
  const TensorView part = job.order.weights.flat(chunk.begin, chunk.numel);
  const std::span<std::byte> memory(static_cast<std::byte*>(part.data()), part.bytes());
  chunk[key.section] = job.order.weights_loaded
                           ? store_.adopt(key, chunk.begin, chunk.numel, memory)
                           : store_.fetch_into(key, chunk.begin, chunk.numel, memory);
}

void ShardUpdater::update(Job& job) {
  std::size_t c = 0;
  try {
    for (; c < job.chunks.size(); ++c) {
      Chunk& chunk = job.chunks[c];
      chunk.fetched.event().wait();
      for (const Lease& lease : chunk.leases) lease.ready().wait();
      trace_transfer(clock_.trace(), TraceLane::kRead, "read", chunk.submitted_ns, last_read_ns_,
                     partition_.block_of(job.order.part), swapped_bytes(chunk, job.order.part));
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
  const bool updates = decision && !decision->skip;
  const bool joins = !job.order.weights.empty() && !reads_in_place(job);
  if (!updates && !joins) return;
  const LaneClock::Span span(clock_, LaneTime::kUpdate, TraceLane::kUpdate,
                             updates ? "update" : "join", partition_.block_of(job.order.part),
                             chunk[Section::kHi].memory().size());
  if (updates) {
    const std::vector<UpdateSegment> segments =
        partition_.part(job.order.part).segments(rank_, chunk.begin, chunk.begin + chunk.numel);
    rule_.update({.numel = chunk.numel,
                  .hi = chunk[Section::kHi].as<std::uint16_t>(),
                  .lo = chunk[Section::kLo].as<std::int16_t>(),
                  .m = chunk[Section::kM].as<float>(),
                  .v = chunk[Section::kV].as<float>(),
                  .gradient = chunk[Section::kGradient].memory().data(),
                  .gradient_dtype = compute_},
                 segments, decision->step, threads_);
    chunk.submitted_ns = Trace::now_ns();
    for (const Section section : kStateSections) {
      if (chunk[section]) chunk.writes.push_back(store_.store(chunk[section]));
    }
  }
  if (joins) {
    join(chunk[Section::kHi].as<std::uint16_t>(), chunk[Section::kLo].as<std::int16_t>(),
         job.order.weights.flat(chunk.begin, chunk.numel));
  }
}

void ShardUpdater::write(Job& job) {
  for (Chunk& chunk : job.chunks) {
    chunk.updated.event().wait();
    for (const Event& done : chunk.writes) done.wait();
    if (!chunk.writes.empty()) {
      trace_transfer(clock_.trace(), TraceLane::kWrite, "write", chunk.submitted_ns, last_write_ns_,
                     partition_.block_of(job.order.part), swapped_bytes(chunk, job.order.part));
    }
    chunk.drop();
  }
}

}  // namespace strata
