#include "swap/io_benchmark.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "core/device.h"
#include "core/error.h"
#include "core/units.h"
#include "swap/fio.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kFileGranule = std::uint64_t{8} << 20;  // the largest block of a sweep
constexpr std::size_t kSpareBytes = std::size_t{512} << 20;
constexpr double kStartSeconds = 0.5;

std::uint64_t whole_granules(std::uint64_t bytes) {
  return std::max(round_up(bytes, kFileGranule), kFileGranule);
}

/// Blocks of memory that a drive cannot compress.
class BlockMemory {
 public:
  BlockMemory(std::size_t blocks, std::size_t block_bytes)
      : block_bytes_(block_bytes), buffer_(allocate_host(blocks * block_bytes)) {
    std::uint64_t state = 1;
    auto* words = reinterpret_cast<std::uint64_t*>(buffer_.data());
    for (std::size_t i = 0; i < buffer_.bytes() / sizeof(std::uint64_t); ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      words[i] = state;
    }
  }
  std::span<std::byte> all() const noexcept { return {buffer_.data(), buffer_.bytes()}; }
  std::span<std::byte> block(std::size_t index) const noexcept {
    return all().subspan(index * block_bytes_, block_bytes_);
  }

 private:
  std::size_t block_bytes_;
  Buffer buffer_;
};

/// Keeps the engine's queue full: always a few more transfers than it has in flight.
class LoadRun {
 public:
  LoadRun(const IoLoad& load, const ScratchFile& file)
      : load_(load),
        blocks_(blocks_in(file, load.engine.block_bytes)),
        writes_next_(blocks_ / 2),
        memory_(outstanding(load.engine), load.engine.block_bytes),
        engine_(make_io_engine(load.engine)),
        file_(engine_->open_file(file.descriptor(), file.path())) {
    engine_->register_memory(memory_.all());
    for (std::size_t i = 0; i < outstanding(load.engine); ++i) submit(i);
  }
  /// Transfers for this long, and what completed in that time.
  IoBandwidth run(double seconds) {
    const IoCounters before = engine_->counters();
    const Clock::time_point start = Clock::now();
    double elapsed = 0;
    do {
      under_way_.front().first.wait();
      resubmit_finished();
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    } while (elapsed < seconds);
    const IoCounters after = engine_->counters();
    return {static_cast<double>(after.bytes_read - before.bytes_read) / elapsed,
            static_cast<double>(after.bytes_written - before.bytes_written) / elapsed};
  }
  /// @throws IoError if one of the last transfers failed
  void finish() const {
    for (const auto& [event, block] : under_way_) event.wait();
  }

 private:
  static std::uint64_t blocks_in(const ScratchFile& file, std::size_t block_bytes) {
    expects(block_bytes > 0 && block_bytes <= file.bytes(),
            "the file of an I/O benchmark holds at least one block");
    return file.bytes() / block_bytes;
  }
  static std::size_t outstanding(const IoEngineOptions& options) {
    const std::size_t spare = kSpareBytes / options.block_bytes;
    return options.queue_depth + std::min<std::size_t>(options.queue_depth, spare);
  }
  IoRequest::Kind next_kind() const {
    if (load_.kind == IoLoad::Kind::kRead) return IoRequest::Kind::kRead;
    if (load_.kind == IoLoad::Kind::kWrite) return IoRequest::Kind::kWrite;
    const bool reads_are_behind = static_cast<double>(reads_) * load_.write_share <=
                                  static_cast<double>(writes_) * load_.read_share;
    return reads_are_behind ? IoRequest::Kind::kRead : IoRequest::Kind::kWrite;
  }
  /// All of them, not just the oldest: a slow transfer must not keep the queue from staying full.
  void resubmit_finished() {
    for (std::size_t i = under_way_.size(); i > 0; --i) {
      auto [event, block] = std::move(under_way_.front());
      under_way_.pop_front();
      if (event.ready()) {
        event.wait();  // throws if it failed
        submit(block);
      } else {
        under_way_.emplace_back(std::move(event), block);
      }
    }
  }
  void submit(std::size_t block) {
    const IoRequest::Kind kind = next_kind();
    const bool read = kind == IoRequest::Kind::kRead;
    std::uint64_t& next = read ? reads_next_ : writes_next_;
    const IoRequest request{kind, file_, next * load_.engine.block_bytes, memory_.block(block)};
    next = (next + 1) % blocks_;
    ++(read ? reads_ : writes_);
    under_way_.emplace_back(engine_->submit({&request, 1}), block);
  }

  const IoLoad load_;
  const std::uint64_t blocks_;
  std::uint64_t reads_next_ = 0;
  std::uint64_t writes_next_;
  std::uint64_t reads_ = 0;
  std::uint64_t writes_ = 0;
  BlockMemory memory_;
  std::unique_ptr<IoEngine> engine_;  // behind the memory its transfers use
  IoFile file_;
  std::deque<std::pair<Event, std::size_t>> under_way_;
};

void write_in_full(const ScratchFile& file) {
  constexpr std::size_t kPieces = 8;
  const BlockMemory memory(kPieces, std::size_t{1} << 20);
  const auto engine = make_io_engine({.queue_depth = kPieces});
  const IoFile handle = engine->open_file(file.descriptor(), file.path());
  for (std::uint64_t offset = 0; offset < file.bytes(); offset += memory.all().size()) {
    const IoRequest request{IoRequest::Kind::kWrite, handle, offset, memory.all()};
    engine->submit({&request, 1}).wait();
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

IoBandwidth median(const std::vector<IoBandwidth>& runs) {
  std::vector<double> reads;
  std::vector<double> writes;
  for (const IoBandwidth& run : runs) {
    reads.push_back(run.read);
    writes.push_back(run.write);
  }
  return {median(reads), median(writes)};
}

}  // namespace

IoBenchmark::IoBenchmark(const std::string& directory, std::uint64_t file_bytes)
    : file_(directory, whole_granules(file_bytes)) {
  write_in_full(file_);
}

IoBandwidth IoBenchmark::measure(const IoLoad& load) const {
  LoadRun run(load, file_);
  run.run(std::min(kStartSeconds, load.seconds / 4));
  const IoBandwidth bandwidth = run.run(load.seconds);
  run.finish();
  return bandwidth;
}

std::optional<IoBandwidth> IoBenchmark::measure_fio(const IoLoad& load) const {
  const std::string path = fmt::format("/proc/{}/fd/{}", getpid(), file_.descriptor());
  const bool uring = make_io_engine({.queue_depth = 1})->name() == "uring";
  return run_fio(load, path, file_.bytes(), file_.is_direct(), uring ? "io_uring" : "libaio");
}

IoComparison IoBenchmark::compare_with_fio(const IoLoad& load, int rounds) const {
  expects(rounds > 0, "a comparison takes at least one round");
  std::vector<IoBandwidth> ours;
  std::vector<IoBandwidth> theirs;
  for (int round = 0; round < rounds; ++round) {
    ours.push_back(measure(load));
    if (const auto fio = measure_fio(load)) theirs.push_back(*fio);
  }
  IoComparison comparison{median(ours), std::nullopt};
  if (!theirs.empty()) comparison.fio = median(theirs);
  return comparison;
}

std::vector<IoSweepPoint> IoBenchmark::sweep(IoLoad load, std::span<const std::size_t> block_bytes,
                                             std::span<const unsigned> queue_depths,
                                             std::span<const IoEngineOptions::Kind> engines) const {
  std::vector<IoSweepPoint> points;
  for (const IoEngineOptions::Kind engine : engines) {
    for (const std::size_t bytes : block_bytes) {
      for (const unsigned depth : queue_depths) {
        load.engine = {engine, depth, bytes};
        points.push_back({load, measure(load)});
      }
    }
  }
  return points;
}

DeviceProfile IoBenchmark::profile(IoLoad load) const {
  const auto measured = [&](IoLoad::Kind kind) {
    load.kind = kind;
    return measure(load);
  };
  const double read = measured(IoLoad::Kind::kRead).read;
  const double write = measured(IoLoad::Kind::kWrite).write;
  const IoBandwidth mixed = measured(IoLoad::Kind::kMixed);
  return {.read = read,
          .write = write,
          .mixed_read = mixed.read,
          .mixed_write = mixed.write,
          .block_bytes = load.engine.block_bytes,
          .queue_depth = load.engine.queue_depth};
}

std::vector<std::size_t> sweep_block_bytes() {
  return {16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20};
}

}  // namespace strata
