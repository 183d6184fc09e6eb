#include "swap/directory_facts.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/error.h"
#include "swap/io_engine.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

TEST(DirectoryFacts, DescribeADirectoryAndLeaveItEmpty) {
  const test::TemporaryDirectory directory;
  const DirectoryFacts facts = probe_directory(directory.path());
  EXPECT_EQ(facts.path, directory.path());
  EXPECT_FALSE(facts.filesystem.empty());
  EXPECT_GT(facts.free_bytes, 0u);
  EXPECT_LE(facts.free_bytes, std::filesystem::space(directory.path()).capacity);
  EXPECT_EQ(facts.is_tmpfs, facts.filesystem == "tmpfs");
  EXPECT_LE(facts.offset_alignment, kIoAlignment) << "transfers would be refused here";
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(DirectoryFacts, RecogniseMemory) {
  if (!std::filesystem::exists("/dev/shm")) GTEST_SKIP() << "there is no /dev/shm here";
  const DirectoryFacts facts = probe_directory("/dev/shm");
  EXPECT_TRUE(facts.is_tmpfs);
  EXPECT_EQ(facts.filesystem, "tmpfs");
  EXPECT_EQ(facts.block_device, "");
  EXPECT_FALSE(facts.wear.has_value());
}

TEST(DirectoryFacts, RefuseAMissingDirectory) {
  EXPECT_THROW(probe_directory("/nonexistent/directory"), UsageError);
}

}  // namespace
}  // namespace strata
