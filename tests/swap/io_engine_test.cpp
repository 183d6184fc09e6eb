#include "swap/io_engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "tests/support/aligned_memory.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::AlignedMemory;
using Kind = IoRequest::Kind;

/// No file grows beyond `bytes` while this lives: writes across it are short, writes behind it
/// fail.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

/// The engine under test and one direct-I/O file, opened by both.
class IoEngineContract : public testing::TestWithParam<IoEngineOptions::Kind> {
 protected:
  void SetUp() override {
    descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
    if (descriptor_ < 0) descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(descriptor_, 0);
    make_engine({.queue_depth = 8, .block_bytes = 64 * 1024});
  }
  void TearDown() override {
    io_.reset();
    if (descriptor_ >= 0) close(descriptor_);
  }
  void make_engine(IoEngineOptions options) {
    options.kind = GetParam();
    try {
      io_ = make_io_engine(options);
    } catch (const Error& cause) {
      GTEST_SKIP() << cause.what();
    }
    file_ = io_->open_file(descriptor_, path_);
  }
  Event submit(Kind kind, std::uint64_t offset, std::span<std::byte> memory) {
    const IoRequest request{kind, file_, offset, memory};
    return io_->submit({&request, 1});
  }
  Event write(std::uint64_t offset, const AlignedMemory& memory) {
    return submit(Kind::kWrite, offset, memory.span());
  }
  Event read(std::uint64_t offset, const AlignedMemory& memory) {
    return submit(Kind::kRead, offset, memory.span());
  }

  test::TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/file";
  int descriptor_ = -1;
  std::unique_ptr<IoEngine> io_;
  IoFile file_;
};

AlignedMemory filled(std::size_t bytes, std::uint64_t seed) {
  AlignedMemory memory(bytes);
  memory.fill(seed);
  return memory;
}

TEST_P(IoEngineContract, ReadsBackWhatItWroteAtOddSizes) {
  std::uint64_t offset = 0;
  for (const std::size_t pages : {1, 3, 15, 16, 17, 31, 33, 257}) {
    const AlignedMemory out = filled(pages * kIoAlignment, pages);
    write(offset, out).wait();
    const AlignedMemory in(out.span().size());
    read(offset, in).wait();
    EXPECT_TRUE(in == out) << pages << " pages";
    offset += out.span().size();
  }
}

TEST_P(IoEngineContract, RunsManySubmissionsAtOnce) {
  constexpr std::size_t kCount = 100;
  constexpr std::size_t kBytes = 3 * 64 * 1024 + kIoAlignment;
  std::vector<AlignedMemory> out;
  std::vector<AlignedMemory> in;
  std::vector<Event> events;
  for (std::size_t i = 0; i < kCount; ++i) out.push_back(filled(kBytes, i));
  for (std::size_t i = 0; i < kCount; ++i) events.push_back(write(i * kBytes, out[i]));
  for (const Event& event : events) event.wait();
  events.clear();
  for (std::size_t i = 0; i < kCount; ++i) in.emplace_back(kBytes);
  for (std::size_t i = 0; i < kCount; ++i) events.push_back(read(i * kBytes, in[i]));
  for (std::size_t i = kCount; i > 0; --i) events[i - 1].wait();
  EXPECT_TRUE(std::equal(in.begin(), in.end(), out.begin()));
}

TEST_P(IoEngineContract, GathersSeveralTransfersIntoOneEvent) {
  const AlignedMemory first = filled(kIoAlignment, 1);
  const AlignedMemory second = filled(5 * kIoAlignment, 2);
  const std::vector<IoRequest> requests{{Kind::kWrite, file_, 0, second.span()},
                                        {Kind::kWrite, file_, 1 << 20, first.span()},
                                        {Kind::kWrite, file_, 4096, {}}};
  io_->submit(requests).wait();
  const AlignedMemory in(kIoAlignment);
  read(1 << 20, in).wait();
  EXPECT_TRUE(in == first);
}

TEST_P(IoEngineContract, TakesAnEmptySubmissionForDone) { EXPECT_TRUE(io_->submit({}).ready()); }

TEST_P(IoEngineContract, ReportsTheEndOfTheFileAsAnError) {
  write(0, filled(kIoAlignment, 0)).wait();
  const AlignedMemory in(4 * kIoAlignment);
  try {
    read(0, in).wait();
    FAIL() << "a read across the end of the file succeeded";
  } catch (const IoError& error) {
    EXPECT_EQ(error.path(), path_);
    EXPECT_EQ(error.offset(), kIoAlignment);
    EXPECT_EQ(error.system_error(), 0);
  }
}

TEST_P(IoEngineContract, ReportsAFileThatEndsInsideAPage) {
  write(0, filled(2 * kIoAlignment, 0)).wait();
  ASSERT_EQ(ftruncate(descriptor_, kIoAlignment + 1000), 0);
  const AlignedMemory in(2 * kIoAlignment);
  EXPECT_THROW(read(0, in).wait(), IoError);
}

TEST_P(IoEngineContract, ContinuesAShortWriteAndReportsTheLimitItMeets) {
  constexpr std::size_t kLimit = 5 * kIoAlignment;  // inside the only piece
  const AlignedMemory out = filled(8 * kIoAlignment, 3);
  {
    const FileSizeLimit limit(kLimit);
    try {
      write(0, out).wait();
      FAIL() << "a write beyond the limit succeeded";
    } catch (const IoError& error) {
      EXPECT_EQ(error.system_error(), EFBIG);
      EXPECT_EQ(error.offset(), kLimit);
    }
  }
  const AlignedMemory in(kLimit);
  read(0, in).wait();
  EXPECT_TRUE(std::equal(in.span().begin(), in.span().end(), out.span().begin()));
}

TEST_P(IoEngineContract, KeepsTheFailureOfOneSubmissionFromTheOthers) {
  const AlignedMemory out = filled(3 * 64 * 1024, 4);
  const AlignedMemory far = filled(3 * 64 * 1024, 5);
  const FileSizeLimit limit(1 << 20);
  const Event first = write(0, out);
  const Event broken = write(8 << 20, far);
  const Event last = write(512 * 1024, out);
  EXPECT_NO_THROW(first.wait());
  EXPECT_THROW(broken.wait(), IoError);
  EXPECT_THROW(broken.wait(), IoError) << "each wait reports it";
  EXPECT_NO_THROW(last.wait());
  const AlignedMemory in(out.span().size());
  read(512 * 1024, in).wait();
  EXPECT_TRUE(in == out);
}

TEST_P(IoEngineContract, ReportsADescriptorThatCannotBeWritten) {
  write(0, filled(kIoAlignment, 0)).wait();
  const int read_only = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  const AlignedMemory out = filled(kIoAlignment, 1);
  const IoRequest request{Kind::kWrite, io_->open_file(read_only, path_), 0, out.span()};
  const Event broken = io_->submit({&request, 1});
  EXPECT_THROW(broken.wait(), IoError);
  io_.reset();
  close(read_only);
}

TEST_P(IoEngineContract, RefusesTransfersThatAreNotAligned) {
  const AlignedMemory memory(2 * kIoAlignment);
  EXPECT_THROW(submit(Kind::kRead, 512, memory.span()), Error);
  EXPECT_THROW(submit(Kind::kRead, 0, memory.span().first(100)), Error);
  EXPECT_THROW(submit(Kind::kRead, 0, memory.span().subspan(64, kIoAlignment)), Error);
  const IoRequest unknown{Kind::kRead, {descriptor_, 7}, 0, memory.span()};
  EXPECT_THROW(io_->submit({&unknown, 1}), Error);
}

TEST_P(IoEngineContract, FinishesEverythingBeforeItIsDestroyed) {
  const AlignedMemory out = filled(4 << 20, 6);
  const Event done = write(0, out);
  io_.reset();
  EXPECT_TRUE(done.ready());
  EXPECT_NO_THROW(done.wait());
  EXPECT_EQ(lseek(descriptor_, 0, SEEK_END), 4 << 20);
}

TEST_P(IoEngineContract, ServesSeveralSubmittersAtOnce) {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kBytes = 2 * 64 * 1024;
  constexpr std::size_t kRounds = 20;
  std::vector<int> correct(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t round = 0; round < kRounds; ++round) {
        const std::uint64_t offset = (round * kThreads + t) * kBytes;
        const AlignedMemory out = filled(kBytes, offset);
        const AlignedMemory in(kBytes);
        write(offset, out).wait();
        read(offset, in).wait();
        correct[t] += in == out ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(correct, std::vector<int>(kThreads, kRounds));
}

TEST_P(IoEngineContract, TransfersFromRegisteredMemoryAndBesideIt) {
  const AlignedMemory pool = filled(1 << 20, 8);
  const AlignedMemory second_pool = filled(1 << 20, 9);
  const AlignedMemory beside = filled(1 << 20, 10);
  io_->register_memory(pool.span());
  io_->register_memory(second_pool.span());
  const std::vector<IoRequest> requests{{Kind::kWrite, file_, 0, pool.span()},
                                        {Kind::kWrite, file_, 1 << 20, second_pool.span()},
                                        {Kind::kWrite, file_, 2 << 20, beside.span()}};
  io_->submit(requests).wait();
  const AlignedMemory in(1 << 20);
  read(1 << 20, in).wait();
  EXPECT_TRUE(in == second_pool);
  read(2 << 20, pool).wait();
  EXPECT_TRUE(pool == beside);
}

TEST_P(IoEngineContract, ServesMoreFilesThanItCanRegister) {
  std::vector<int> descriptors;
  const AlignedMemory out = filled(kIoAlignment, 11);
  for (int i = 0; i < 70; ++i) {
    const std::string path = directory_.path() + "/more" + std::to_string(i);
    descriptors.push_back(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    const IoRequest request{Kind::kWrite, io_->open_file(descriptors.back(), path), 0, out.span()};
    io_->submit({&request, 1}).wait();
    EXPECT_EQ(lseek(descriptors.back(), 0, SEEK_END), kIoAlignment);
  }
  io_.reset();
  for (const int descriptor : descriptors) close(descriptor);
}

TEST_P(IoEngineContract, CountsBytesAndBusySeconds) {
  const AlignedMemory out = filled(1 << 20, 12);
  write(0, out).wait();
  const AlignedMemory in(256 * 1024);
  read(0, in).wait();
  const IoCounters counters = io_->counters();
  EXPECT_EQ(counters.bytes_written, 1u << 20);
  EXPECT_EQ(counters.bytes_read, 256u * 1024);
  EXPECT_GT(counters.seconds_writing, 0.0);
  EXPECT_GT(counters.seconds_reading, 0.0);
  EXPECT_LT(counters.seconds_writing + counters.seconds_reading, 60.0);
}

TEST_P(IoEngineContract, RefusesOptionsThatMakeNoSense) {
  EXPECT_THROW(make_io_engine({GetParam(), 0, 1 << 20}), Error);
  EXPECT_THROW(make_io_engine({GetParam(), 32, 1000}), Error);
}

INSTANTIATE_TEST_SUITE_P(All, IoEngineContract,
                         testing::Values(IoEngineOptions::Kind::kThreads,
                                         IoEngineOptions::Kind::kUring),
                         [](const auto& kind) {
                           return kind.param == IoEngineOptions::Kind::kUring ? "Uring" : "Threads";
                         });

}  // namespace
}  // namespace strata
