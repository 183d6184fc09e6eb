#include "swap/file_reader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "core/device.h"
#include "core/error.h"
#include "swap/swap_file.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

std::string content(std::size_t bytes) {
  std::string text(bytes, '\0');
  std::uint32_t state = 1;
  for (char& c : text) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

class FileReaderTest : public testing::TestWithParam<IoEngineOptions::Kind> {
 protected:
  std::unique_ptr<IoEngine> make_engine() const { return make_io_engine({.kind = GetParam()}); }
  test::TemporaryDirectory directory_;
  Buffer pool_ = allocate_host(FileReader::kPoolBytes);
};

TEST_P(FileReaderTest, GivesTheBytesOfAnyRangeInOrder) {
  const std::string text = content((5u << 20) + 1234);
  const auto path = test::write_file(directory_ / "file", text).string();
  const auto other = test::write_file(directory_ / "other", "0123456789").string();
  const auto engine = make_engine();
  FileReader reader(*engine, {pool_.data(), pool_.bytes()});
  const int file = reader.open(path);
  EXPECT_EQ(reader.open(path), file);
  const int small = reader.open(other);
  struct Wanted {
    int file;
    std::uint64_t offset, bytes;
  };
  const std::vector<Wanted> wanted{{file, 0, 1},
                                   {file, 4095, 2},
                                   {file, 12, 3u << 20},
                                   {file, (1u << 20) + 6, 8},
                                   {file, 3u << 20, (2u << 20) + 1234},
                                   {file, (5u << 20) + 1000, 234},
                                   {small, 3, 7},
                                   {file, 7, 0}};
  std::vector<std::string> got(wanted.size());
  std::vector<FileReader::Range> ranges;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    ranges.push_back({.file = wanted[i].file,
                      .offset = wanted[i].offset,
                      .bytes = wanted[i].bytes,
                      .take = [&got, i](std::uint64_t begin, std::span<const std::byte> bytes) {
                        EXPECT_EQ(begin, got[i].size());
                        EXPECT_EQ(begin % 8, 0u);
                        got[i].append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                      }});
  }
  reader.read(ranges, {}).wait();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::string& from = wanted[i].file == file ? text : std::string("0123456789");
    EXPECT_EQ(got[i], from.substr(wanted[i].offset, wanted[i].bytes)) << "range " << i;
  }
}

TEST_P(FileReaderTest, WaitsForTheMemoryAndGoesOnAfterAFailure) {
  const auto path = test::write_file(directory_ / "file", content(100'000)).string();
  const auto engine = make_engine();
  FileReader reader(*engine, {pool_.data(), pool_.bytes()});
  const int file = reader.open(path);
  const HostEvent free;
  std::size_t taken = 0;
  const auto count = [&](std::uint64_t, std::span<const std::byte> bytes) {
    taken += bytes.size();
  };
  const Event first = reader.read({{file, 1, 50'000, count}}, {free.event()});
  EXPECT_FALSE(first.ready());
  EXPECT_EQ(taken, 0u);
  free.complete();
  first.wait();
  EXPECT_EQ(taken, 50'000u);
  const Event beyond = reader.read({{file, 99'000, 2'000, count}}, {});
  EXPECT_THROW(beyond.wait(), IoError);
  const auto refuse = [](std::uint64_t, std::span<const std::byte>) { throw Error("no"); };
  const Event refused = reader.read({{file, 0, 10, refuse}}, {});
  EXPECT_THROW(refused.wait(), Error);
  const HostEvent broken;
  const Event never = reader.read({{file, 0, 10, count}}, {broken.event()});
  broken.fail(std::make_exception_ptr(Error("broken")));
  EXPECT_THROW(never.wait(), Error);
  taken = 0;
  reader.read({{file, 3, 99'997, count}}, {}).wait();
  EXPECT_EQ(taken, 99'997u);
  EXPECT_THROW(reader.open((directory_ / "none").string()), IoError);
}

TEST_P(FileReaderTest, ReadsASwapSpaceAsAFile) {
  const std::vector<SwapDirectory> directories{{.path = directory_ / "a"},
                                               {.path = directory_ / "b"}};
  for (const SwapDirectory& each : directories) std::filesystem::create_directory(each.path);
  const auto engine = make_engine();
  const std::string text = content(9u << 20);  // more than a stripe
  SwapSpace space(*engine, directories, text.size());
  Buffer memory = allocate_host(text.size());
  std::memcpy(memory.data(), text.data(), text.size());
  space.write(0, {memory.data(), memory.bytes()}).wait();

  FileReader reader(*engine, {pool_.data(), pool_.bytes()});
  const int file = reader.open(test::write_file(directory_ / "file", "0123456789").string());
  const int swap = reader.open(space);
  EXPECT_EQ(reader.open(space), swap);
  EXPECT_NE(swap, file);
  std::string got;
  const auto take = [&](std::uint64_t, std::span<const std::byte> bytes) {
    got.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  reader.read({{swap, 5000, 100, take}, {file, 3, 4, take}, {swap, 8191, 8u << 20, take}}, {})
      .wait();
  EXPECT_EQ(got, text.substr(5000, 100) + "3456" + text.substr(8191, 8u << 20));
  got.clear();
  reader.read({{swap, text.size() - 3, 3, take}}, {}).wait();
  EXPECT_EQ(got, text.substr(text.size() - 3));
  EXPECT_THROW(reader.read({{swap, text.size() - 3, 4, take}}, {}).wait(), Error);
}

INSTANTIATE_TEST_SUITE_P(Engines, FileReaderTest,
                         testing::Values(IoEngineOptions::Kind::kAuto,
                                         IoEngineOptions::Kind::kThreads));

}  // namespace
}  // namespace strata
