#include <gtest/gtest.h>

#include "tests/support/run_program.h"

namespace strata {
namespace {

/// launch/install-packages.sh on a machine made of stand-ins for dpkg-query, apt-get and sudo.
class InstallPackages : public testing::Test {
 protected:
  InstallPackages() {
    add("sudo", "[ \"$1\" = -n ] && shift; exec \"$@\"");
    add("dpkg-query", "case \"$*\" in *" + missing_ + "*) exit 1;; esac; echo -n installed");
    add("apt-get", "echo \"$*\" >> " + calls().string());
  }

  std::filesystem::path calls() const { return directory_ / "calls"; }
  void add(const std::string& name, const std::string& script) {
    const auto path = directory_ / ("bin/" + name);
    test::write_file(path, "#!/bin/sh\n" + script + "\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  test::ProgramResult run() {
    return test::run_program({"env", "PATH=" + (directory_ / "bin").string() + ":/usr/bin:/bin",
                              STRATA_SOURCE_DIR "/launch/install-packages.sh"});
  }

  std::string missing_ = "libcli11-dev";
  test::TemporaryDirectory directory_;
};

TEST_F(InstallPackages, DoesNothingWhenNothingIsMissing) {
  add("dpkg-query", "echo -n installed");
  const auto result = run();
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(result.output + result.errors, "");
  EXPECT_FALSE(std::filesystem::exists(calls()));
}

TEST_F(InstallPackages, InstallsWhatIsMissingAndNothingElse) {
  const auto result = run();
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(test::read_file(calls()), "install -y --no-install-recommends libcli11-dev\n");
}

TEST_F(InstallPackages, FetchesTheListOfPackagesWhenTheFirstAttemptFails) {
  add("apt-get", "echo \"$1\" >> " + calls().string() + "; [ \"$1\" = update ] && touch " +
                     (directory_ / "list").string() + "; [ -e " + (directory_ / "list").string() +
                     " ]");
  EXPECT_EQ(run().exit_code, 0);
  EXPECT_EQ(test::read_file(calls()), "install\nupdate\ninstall\n");
}

TEST_F(InstallPackages, SaysInOneLineWhatCannotBeHad) {
  add("apt-get", "[ \"$1\" = update ] || { echo 'E: Unable to locate package'; exit 100; }");
  const auto result = run();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.errors,
            "install-packages: cannot install libcli11-dev: E: Unable to locate package\n");
}

}  // namespace
}  // namespace strata
