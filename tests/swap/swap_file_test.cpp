#include "swap/swap_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "tests/support/aligned_memory.h"
#include "tests/support/delaying_io_engine.h"
#include "tests/support/faulty_io_engine.h"
#include "tests/support/hostile_io_engine.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::AlignedMemory;

AlignedMemory filled(std::size_t bytes, std::uint64_t seed) {
  AlignedMemory memory(bytes);
  memory.fill(seed);
  return memory;
}

class SwapSpaceTest : public testing::Test {
 protected:
  std::vector<SwapDirectory> one() const { return {{first_.path(), 1}}; }
  std::vector<SwapDirectory> two() const { return {{first_.path(), 5}, {second_.path(), 2}}; }

  test::TemporaryDirectory first_;
  test::TemporaryDirectory second_;
  std::unique_ptr<IoEngine> io_ = make_io_engine({});
};

TEST_F(SwapSpaceTest, ReadsBackWhatWasWrittenAcrossStripes) {
  SwapSpace space(*io_, two(), 40 << 20);
  const AlignedMemory out = filled(33 << 20, 1);
  space.write(3 * kIoAlignment, out.span()).wait();
  const AlignedMemory in(33 << 20);
  space.read(3 * kIoAlignment, in.span()).wait();
  EXPECT_TRUE(in == out);
  const AlignedMemory middle(5 << 20);
  space.read(kStripeBytes, middle.span()).wait();
  const auto from = out.span().subspan(kStripeBytes - 3 * kIoAlignment, middle.span().size());
  EXPECT_TRUE(std::equal(from.begin(), from.end(), middle.span().begin()));
}

TEST_F(SwapSpaceTest, LeavesNothingInItsDirectories) {
  const SwapSpace space(*io_, two(), 20 << 20);
  EXPECT_TRUE(std::filesystem::is_empty(first_.path()));
  EXPECT_TRUE(std::filesystem::is_empty(second_.path()));
}

TEST_F(SwapSpaceTest, RoundsItsSizeUp) {
  SwapSpace space(*io_, one(), 5000);
  EXPECT_EQ(space.bytes(), 2 * kIoAlignment);
  const AlignedMemory memory(kIoAlignment);
  EXPECT_NO_THROW(space.write(kIoAlignment, memory.span()).wait());
  EXPECT_THROW(space.read(2 * kIoAlignment, memory.span()), Error);
  EXPECT_THROW(space.read(~std::uint64_t{0} - 4095, memory.span()), Error);
}

TEST_F(SwapSpaceTest, NamesTheDirectoryThatCannotBeUsedWithinMilliseconds) {
  std::vector<SwapDirectory> directories = two();
  directories[1].path += "/missing";
  const auto start = std::chrono::steady_clock::now();
  try {
    const SwapSpace space(*io_, directories, 40 << 20);
    FAIL() << "a missing directory was accepted";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find(directories[1].path), std::string::npos);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_THROW(SwapSpace(*io_, {}, 1 << 20), UsageError);
}

// Without SwapSpace in between, the double shows the fault that SwapSpace prevents.
TEST_F(SwapSpaceTest, HostileEngineReadsStaleBytesWhenNobodyOrders) {
  test::HostileIoEngine hostile(*io_);
  const ScratchFile scratch(first_.path(), 1 << 20);
  const IoFile file = hostile.open_file(scratch.descriptor(), scratch.path());
  const AlignedMemory out = filled(kIoAlignment, 2);
  const AlignedMemory in(kIoAlignment);
  const IoRequest write{IoRequest::Kind::kWrite, file, 0, out.span()};
  const IoRequest read{IoRequest::Kind::kRead, file, 0, in.span()};
  const Event written = hostile.submit({&write, 1});
  hostile.submit({&read, 1}).wait();
  EXPECT_FALSE(in == out);
  EXPECT_FALSE(written.ready());
  written.wait();
  hostile.submit({&read, 1}).wait();
  EXPECT_TRUE(in == out);
}

TEST_F(SwapSpaceTest, AReadSeesTheLastWriteOfAHostileEngine) {
  test::HostileIoEngine hostile(*io_);
  SwapSpace space(hostile, two(), 20 << 20);
  const AlignedMemory out = filled(6 << 20, 3);
  const AlignedMemory in(kIoAlignment);
  const Event written = space.write(0, out.span());
  space.read((6 << 20) - kIoAlignment, in.span()).wait();  // overlaps the last page only
  EXPECT_TRUE(std::equal(in.span().begin(), in.span().end(),
                         out.span().end() - static_cast<std::ptrdiff_t>(kIoAlignment)));
  EXPECT_TRUE(written.ready());
}

TEST_F(SwapSpaceTest, TheLastOfTwoOverlappingWritesWinsOnAHostileEngine) {
  test::HostileIoEngine hostile(*io_);
  SwapSpace space(hostile, one(), 1 << 20);
  const AlignedMemory first = filled(8 * kIoAlignment, 4);
  const AlignedMemory second = filled(8 * kIoAlignment, 5);
  const std::vector<Event> events{space.write(0, first.span()), space.write(0, second.span())};
  for (const Event& event : events) event.wait();
  const AlignedMemory in(8 * kIoAlignment);
  space.read(0, in.span()).wait();
  EXPECT_TRUE(in == second);
}

TEST_F(SwapSpaceTest, DoesNotWaitForWritesElsewhere) {
  test::HostileIoEngine hostile(*io_);
  SwapSpace space(hostile, one(), 1 << 20);
  const AlignedMemory out = filled(kIoAlignment, 6);
  const AlignedMemory in(kIoAlignment);
  const Event written = space.write(0, out.span());
  space.read(kIoAlignment, in.span()).wait();
  EXPECT_FALSE(written.ready()) << "a neighbour's write was waited for";
}

TEST_F(SwapSpaceTest, AWriteWaitsForAReadOfTheSameBytes) {
  using namespace std::chrono_literals;
  test::DelayingIoEngine slow(*io_, 50ms);
  SwapSpace space(slow, one(), 1 << 20);
  const AlignedMemory memory = filled(kIoAlignment, 7);
  space.write(0, memory.span()).wait();
  const AlignedMemory in(kIoAlignment);
  const Event read = space.read(0, in.span());
  const Event written = space.write(0, memory.span());
  EXPECT_TRUE(read.ready());
  written.wait();
}

TEST_F(SwapSpaceTest, RunsTransfersOfASlowDriveSideBySide) {
  using namespace std::chrono_literals;
  test::DelayingIoEngine slow(*io_, 100ms);
  SwapSpace space(slow, one(), 1 << 20);
  const AlignedMemory out = filled(kIoAlignment, 8);
  std::vector<Event> events;
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < 20; ++i)
    events.push_back(space.write(i * kIoAlignment, out.span()));
  for (const Event& event : events) event.wait();
  const auto seconds = std::chrono::steady_clock::now() - start;
  EXPECT_GE(seconds, 100ms);
  EXPECT_LT(seconds, 1500ms);
}

TEST_F(SwapSpaceTest, ReportsAFailedWriteToEveryLaterCall) {
  test::FaultyIoEngine faulty(*io_, {.request = 1, .system_error = ENOSPC});
  SwapSpace space(faulty, one(), 1 << 20);
  const AlignedMemory memory(kIoAlignment);
  EXPECT_NO_THROW(space.write(0, memory.span()).wait());
  const Event broken = space.write(0, memory.span());
  EXPECT_THROW(space.read(0, memory.span()), IoError);
  EXPECT_THROW(space.write(kIoAlignment, memory.span()), IoError);
  try {
    broken.wait();
    FAIL() << "the failed write succeeded";
  } catch (const IoError& error) {
    EXPECT_EQ(error.system_error(), ENOSPC);
  }
}

TEST_F(SwapSpaceTest, AFailedReadConcernsNobodyElse) {
  test::FaultyIoEngine faulty(*io_, {.request = 1, .system_error = EIO});
  SwapSpace space(faulty, one(), 1 << 20);
  const AlignedMemory out = filled(kIoAlignment, 9);
  const AlignedMemory in(kIoAlignment);
  space.write(0, out.span()).wait();
  EXPECT_THROW(space.read(0, in.span()).wait(), IoError);
  EXPECT_FALSE(in == out);
  space.read(0, in.span()).wait();
  EXPECT_TRUE(in == out);
}

TEST_F(SwapSpaceTest, WaitsForItsTransfersBeforeTheFilesGo) {
  using namespace std::chrono_literals;
  test::DelayingIoEngine slow(*io_, 50ms);
  const AlignedMemory out = filled(kIoAlignment, 10);
  Event written;
  {
    SwapSpace space(slow, one(), 1 << 20);
    written = space.write(0, out.span());
  }
  EXPECT_TRUE(written.ready());
}

TEST_F(SwapSpaceTest, ServesSeveralThreads) {
  SwapSpace space(*io_, two(), 32 << 20);
  std::vector<int> correct(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < correct.size(); ++t) {
    threads.emplace_back([&, t] {
      const std::uint64_t offset = t * (8 << 20) + kIoAlignment;
      for (std::uint64_t round = 0; round < 10; ++round) {
        const AlignedMemory out = filled(64 * kIoAlignment, offset + round);
        const AlignedMemory in(64 * kIoAlignment);
        const Event written = space.write(offset, out.span());
        space.read(offset, in.span()).wait();
        correct[t] += in == out ? 1 : 0;
        written.wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(correct, std::vector<int>(4, 10));
}

}  // namespace
}  // namespace strata
