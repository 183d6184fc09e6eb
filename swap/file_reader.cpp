#include "swap/file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace strata {
namespace {

constexpr std::uint64_t kElementBytes = 8;  // no element is cut in two

}  // namespace

/// One file, opened twice: past the page cache where that is possible, and for its last bytes,
/// which fill no block, as any other. Or a swap space, which is all blocks.
class FileReader::File {
 public:
  explicit File(SwapSpace& space) : space_(&space) {}
  File(IoEngine& engine, const std::string& path) : engine_(&engine), plain_(path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (descriptor_ < 0 && errno == EINVAL) {
      descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    }
    if (descriptor_ < 0) throw IoError("cannot open", path, 0, errno);
    handle_ = engine.open_file(descriptor_, path);
  }
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is(const std::string& path) const { return plain_ && plain_->path() == path; }
  bool is(const SwapSpace& space) const noexcept { return space_ == &space; }
  /// Bytes of whole blocks.
  std::uint64_t whole() const noexcept {
    return plain_ ? round_down(plain_->size(), kIoAlignment) : space_->bytes();
  }
  Event read(std::uint64_t offset, std::span<std::byte> blocks) const {
    if (space_ != nullptr) return space_->read(offset, blocks);
    const IoRequest request{
        .kind = IoRequest::Kind::kRead, .file = handle_, .offset = offset, .memory = blocks};
    return engine_->submit({&request, 1});
  }
  /// Bytes behind whole().
  void read_rest(std::uint64_t offset, std::span<std::byte> out) const {
    expects(plain_.has_value(), "a range must lie inside the swap space");
    plain_->read(offset, out);
  }

 private:
  SwapSpace* space_ = nullptr;
  IoEngine* engine_ = nullptr;
  std::optional<ReadableFile> plain_;
  int descriptor_ = -1;
  IoFile handle_;
};

/// Blocks of a file under way.
struct FileReader::Piece {
  std::size_t range = 0;
  std::uint64_t begin = 0;  // of the wanted bytes, into the range
  std::uint64_t skip = 0;   // bytes of memory before them
  std::uint64_t bytes = 0;  // wanted
  PoolBlock memory;
  Event arrived;
};

struct FileReader::Job {
  std::vector<Range> ranges;
  std::vector<Event> free;
  HostEvent done;
  bool failed = false;  // the take lane's

  void fail() {
    if (!std::exchange(failed, true)) done.fail(std::current_exception());
  }
};

FileReader::FileReader(IoEngine& engine, std::span<std::byte> pool)
    : engine_(engine),
      pool_(pool),
      read_(make_host_stream("file read")),
      take_(make_host_stream("file take")) {}

FileReader::~FileReader() {
  pool_.close();
  read_.reset();  // submits to the other
  take_.reset();
}

int FileReader::open(const std::string& path) {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i]->is(path)) return static_cast<int>(i);
  }
  files_.push_back(std::make_unique<File>(engine_, path));
  return static_cast<int>(files_.size()) - 1;
}

int FileReader::open(SwapSpace& space) {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i]->is(space)) return static_cast<int>(i);
  }
  files_.push_back(std::make_unique<File>(space));
  return static_cast<int>(files_.size()) - 1;
}

Event FileReader::read(std::vector<Range> ranges, std::vector<Event> free) {
  auto job = std::make_shared<Job>();
  job->ranges = std::move(ranges);
  job->free = std::move(free);
  // Nothing may leave these by an exception: it would drop the jobs behind.
  read_->enqueue([this, job] {
    std::exception_ptr failure;
    try {
      submit(*job);
    } catch (...) {
      failure = std::current_exception();
    }
    take_->enqueue([job, failure] {
      if (job->failed) return;
      failure ? job->done.fail(failure) : job->done.complete();
    });
  });
  return job->done.event();
}

void FileReader::submit(Job& job) {
  for (const Event& event : job.free) event.wait();
  for (std::size_t range = 0; range < job.ranges.size(); ++range) submit_range(job, range);
}

void FileReader::submit_range(Job& job, std::size_t range) {
  const Range& wanted = job.ranges[range];
  const File& file = *files_.at(static_cast<std::size_t>(wanted.file));
  const std::uint64_t end = wanted.offset + wanted.bytes;
  for (std::uint64_t at = wanted.offset; at < end;) {
    const std::uint64_t first = round_down(at, kIoAlignment);
    std::uint64_t last = ((at + kElementBytes) / kPieceBytes + 1) * kPieceBytes;
    last = std::min(last - (last - wanted.offset) % kElementBytes, end);
    const std::uint64_t stop = round_up(last, kIoAlignment);
    auto piece = std::make_shared<Piece>(Piece{.range = range,
                                               .begin = at - wanted.offset,
                                               .skip = at - first,
                                               .bytes = last - at,
                                               .memory = pool_.acquire(stop - first),
                                               .arrived = {}});
    const std::uint64_t direct = std::min(stop, file.whole());
    const std::span<std::byte> memory = piece->memory.memory();
    // What may throw comes before what uses the memory in the background.
    if (last > direct) {
      const std::uint64_t from = std::max(direct, first);
      file.read_rest(from, memory.subspan(from - first, last - from));
    }
    if (direct > first) piece->arrived = file.read(first, memory.first(direct - first));
    take_->enqueue([this, &job, piece] { take(job, *piece); });
    at = last;
  }
}

void FileReader::take(Job& job, Piece& piece) {
  try {
    piece.arrived.wait();  // also after a failure: the memory is the drive's until then
    const Range& range = job.ranges[piece.range];
    if (!job.failed) {
      range.take(piece.begin, piece.memory.memory().subspan(piece.skip, piece.bytes));
    }
  } catch (...) {
    job.fail();
  }
  piece.memory.reset();
}

}  // namespace strata
