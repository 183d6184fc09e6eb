#include "parallel/machine_profile.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

TEST(MachineProfile, KeepsWhatWasMeasuredBeforeAndReplacesWhatIsNew) {
  const test::TemporaryDirectory directory;
  const auto file = directory / "cache/machine.json";
  save_machine_profile(file, {.products_bf16 = 2e11, .memory = 3e10});
  save_machine_profile(file, {.memory = 4e10, .gather = 5e9});
  const LoadedMachineProfile loaded = load_machine_profile(file);
  EXPECT_EQ(loaded.warning, "");
  EXPECT_EQ(loaded.profile.products(Dtype::kBf16), 2e11);
  EXPECT_EQ(loaded.profile.products(Dtype::kF32), 0);
  EXPECT_EQ(loaded.profile.memory, 4e10);
  EXPECT_EQ(loaded.profile.gather, 5e9);
  EXPECT_EQ(loaded.profile.updates, 0);
}

TEST(MachineProfile, HasRatesOfQuantizedWeightsIn16Bits) {
  const MachineProfile machine{
      .products_bf16 = 1, .products_fp32 = 2, .products_int8 = 3, .products_int4 = 4};
  EXPECT_EQ(machine.products(Dtype::kBf16, Dtype::kBf16), 1);
  EXPECT_EQ(machine.products(Dtype::kBf16, Dtype::kQ8), 3);
  EXPECT_EQ(machine.products(Dtype::kF16, Dtype::kQ4), 4);
  EXPECT_EQ(machine.products(Dtype::kF32, Dtype::kQ8), 2);
}

TEST(MachineProfile, ReadsAMissingFileAsNothingMeasured) {
  const LoadedMachineProfile loaded = load_machine_profile("/nonexistent/machine.json");
  EXPECT_EQ(loaded.profile.memory, 0);
  EXPECT_EQ(loaded.warning, "");
}

TEST(MachineProfile, WarnsAboutADamagedFileAndReplacesIt) {
  const test::TemporaryDirectory directory;
  const auto file = directory / "machine.json";
  for (const char* text :
       {"", "[]", "{\"memory\": -1}", "{\"memory\": \"fast\"}", "{\"memory\": 1"}) {
    std::ofstream(file) << text;
    const LoadedMachineProfile loaded = load_machine_profile(file);
    EXPECT_EQ(loaded.profile.memory, 0) << text;
    EXPECT_NE(loaded.warning.find(file.string()), std::string::npos) << text;
  }
  save_machine_profile(file, {.memory = 1e10});
  EXPECT_EQ(load_machine_profile(file).profile.memory, 1e10);
}

TEST(MachineProfile, LiesBesideTheProfilesOfDrives) {
  const test::TemporaryDirectory directory;
  setenv("XDG_CACHE_HOME", directory.path().c_str(), 1);
  EXPECT_EQ(machine_profile_path(), directory / "strata/machine.json");
  unsetenv("XDG_CACHE_HOME");
}

TEST(MachineProfile, SaysWhichFileCannotBeWritten) {
  const test::TemporaryDirectory directory;
  std::ofstream(directory / "file") << "";
  EXPECT_THROW(save_machine_profile(directory / "file/machine.json", {.memory = 1}), IoError);
}

}  // namespace
}  // namespace strata
