#include "core/paths.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

TEST(NearestExisting, IsThePathItselfOrTheDirectoryThatHoldsWhatIsMissing) {
  const test::TemporaryDirectory directory;
  const std::filesystem::path root = directory.path();
  EXPECT_EQ(nearest_existing(root), root);
  EXPECT_EQ(nearest_existing(root / "a"), root);
  EXPECT_EQ(nearest_existing(root / "a/b/c"), root);
  EXPECT_EQ(nearest_existing(root / "a/b/"), root);
  const auto file = test::write_file(root / "file", "x");
  EXPECT_EQ(nearest_existing(file), file);
  EXPECT_EQ(nearest_existing(file / "below"), file);
  EXPECT_EQ(nearest_existing("/nowhere/at/all"), "/");
  EXPECT_EQ(nearest_existing("nowhere/at/all"), std::filesystem::current_path());
}

}  // namespace
}  // namespace strata
