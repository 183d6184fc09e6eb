#include "swap/scratch_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/error.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

std::string message_of(const std::string& directory, std::uint64_t bytes) {
  try {
    const ScratchFile file(directory, bytes);
  } catch (const UsageError& error) {
    return error.what();
  }
  return {};
}

TEST(ScratchFile, HasNoNameAndBelongsToItsOwnerAlone) {
  const test::TemporaryDirectory directory;
  const ScratchFile file(directory.path(), 1 << 20);
  struct stat facts {};
  ASSERT_EQ(fstat(file.descriptor(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777, 0600u);
  EXPECT_EQ(facts.st_nlink, 0u);
  EXPECT_EQ(facts.st_size, 1 << 20);
  EXPECT_NE(fcntl(file.descriptor(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(ScratchFile, ReservesItsSpaceAtOnce) {
  const test::TemporaryDirectory directory;
  const ScratchFile file(directory.path(), 8 << 20);
  struct stat facts {};
  ASSERT_EQ(fstat(file.descriptor(), &facts), 0);
  EXPECT_GE(facts.st_blocks * 512, 8 << 20);
}

TEST(ScratchFile, SaysHowMuchIsNeededAndHowMuchIsFree) {
  const test::TemporaryDirectory directory;
  const std::string message = message_of(directory.path(), std::uint64_t{1} << 60);
  EXPECT_NE(message.find(directory.path()), std::string::npos) << message;
  EXPECT_NE(message.find("1152921504606846976 bytes are needed"), std::string::npos) << message;
  EXPECT_NE(message.find("are free"), std::string::npos) << message;
}

TEST(ScratchFile, KeepsFivePercentOfHeadroom) {
  const test::TemporaryDirectory directory;
  struct statvfs facts {};
  ASSERT_EQ(statvfs(directory.path().c_str(), &facts), 0);
  const std::uint64_t free = std::uint64_t{facts.f_bavail} * facts.f_frsize;
  EXPECT_NE(message_of(directory.path(), free / 100 * 99), "");
}

TEST(ScratchFile, RefusesAMissingDirectoryAndAFile) {
  const test::TemporaryDirectory directory;
  const std::string missing = directory.path() + "/missing";
  EXPECT_NE(message_of(missing, 4096).find(missing + ": No such file"), std::string::npos);
  const std::string file = directory.path() + "/file";
  std::ofstream(file) << "x";
  EXPECT_NE(message_of(file, 4096).find(file + " is a file"), std::string::npos);
}

TEST(ScratchFile, RefusesADirectoryWithoutPermission) {
  const test::TemporaryDirectory directory;
  ASSERT_EQ(chmod(directory.path().c_str(), 0500), 0);
  const auto probe = [&] {
    if (geteuid() == 0 && setuid(65534) != 0) std::_Exit(2);  // root may write anywhere
    std::fprintf(stderr, "%s", message_of(directory.path(), 4096).c_str());
    std::_Exit(0);
  };
  EXPECT_EXIT(probe(), testing::ExitedWithCode(0),
              "no file can be created.*Permission denied.*check");
}

TEST(ScratchFile, LeavesNothingBehindAKilledProcess) {
  const test::TemporaryDirectory directory;
  const auto die = [&] {
    const ScratchFile file(directory.path(), 1 << 20);
    raise(SIGKILL);
  };
  EXPECT_EXIT(die(), testing::KilledBySignal(SIGKILL), "");
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(ScratchFile, WarnsOfATmpfs) {
  if (!std::filesystem::exists("/dev/shm")) GTEST_SKIP() << "there is no /dev/shm here";
  const ScratchFile file("/dev/shm", 4096);
  ASSERT_FALSE(file.warnings().empty());
  EXPECT_NE(file.warnings().back().find("/dev/shm is a tmpfs"), std::string::npos);
}

}  // namespace
}  // namespace strata
