#include "swap/pcie_link.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

/// A /sys with what the tests put there.
class FakeSys {
 public:
  void pci_device(const std::string& address, const char* speed, const char* width) {
    test::write_file(devices() / address / "current_link_speed", speed);
    test::write_file(devices() / address / "current_link_width", width);
  }
  /// A block device at `path` below /sys/devices.
  void block_device(const std::string& path) {
    fs::create_directories(root_ / "sys/class/block");
    fs::create_directories(devices() / path);
    fs::create_directory_symlink(devices() / path,
                                 root_ / "sys/class/block" / fs::path(path).filename());
  }
  fs::path devices() const { return root_ / "sys/devices"; }
  std::string links(const std::string& block_device) const {
    return describe(pcie_links(block_device, root_.path()));
  }

 private:
  test::TemporaryDirectory root_;
};

TEST(PcieLink, IsThatOfTheDrivesController) {
  FakeSys sys;
  sys.pci_device("pci0/0000:01:00.0", "16.0 GT/s PCIe\n", "4\n");
  sys.block_device("pci0/0000:01:00.0/nvme/nvme0/nvme0n1");
  sys.block_device("pci0/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
  EXPECT_EQ(sys.links("nvme0n1"), "PCIe 4.0 x4");
  EXPECT_EQ(sys.links("nvme0n1p2"), "PCIe 4.0 x4");
  EXPECT_EQ(pcie_links("nvme0n1", "/nonexistent"), std::vector<PcieLink>{});
}

TEST(PcieLink, IsFoundOverTheSubsystemOfADriveWithSeveralPaths) {
  FakeSys sys;
  sys.pci_device("pci0/0000:01:00.0", "32.0 GT/s PCIe\n", "2\n");
  fs::create_directories(sys.devices() / "pci0/0000:01:00.0/nvme/nvme0");
  sys.block_device("virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
  fs::create_directory_symlink(sys.devices() / "pci0/0000:01:00.0/nvme/nvme0",
                               sys.devices() / "virtual/nvme-subsystem/nvme-subsys0/nvme0");
  EXPECT_EQ(sys.links("nvme0n1"), "PCIe 5.0 x2");
}

TEST(PcieLink, OfAnArrayIsThatOfEachDrive) {
  FakeSys sys;
  for (const std::string number : {"1", "2"}) {
    const std::string pci = "pci0/0000:0" + number + ":00.0";
    sys.pci_device(pci, "32.0 GT/s PCIe\n", "4\n");
    sys.block_device(pci + "/nvme/nvme" + number + "/nvme" + number + "n1");
  }
  sys.block_device("virtual/block/md0");
  for (const std::string drive : {"nvme1n1", "nvme2n1"}) {
    fs::create_directories(sys.devices() / "virtual/block/md0/slaves");
    fs::create_directory_symlink("../../../../../class/block/" + drive,
                                 sys.devices() / "virtual/block/md0/slaves" / drive);
  }
  EXPECT_EQ(sys.links("md0"), "2 x PCIe 5.0 x4");
}

TEST(PcieLink, IsNotGuessed) {
  FakeSys sys;
  sys.pci_device("pci0/0000:01:00.0", "Unknown\n", "63\n");
  sys.block_device("pci0/0000:01:00.0/nvme/nvme0/nvme0n1");
  EXPECT_EQ(sys.links("nvme0n1"), "");
  // A disk's host adapter has a link of its own, which is not the drive's.
  sys.pci_device("pci0/0000:02:00.0", "8.0 GT/s PCIe\n", "2\n");
  sys.block_device("pci0/0000:02:00.0/ata1/host0/target0/block/sda");
  EXPECT_EQ(sys.links("sda"), "");
  EXPECT_EQ(sys.links(""), "");
  EXPECT_EQ(sys.links("nvme7n1"), "");
  EXPECT_EQ(describe({{4, 4}, {3, 4}}), "PCIe 4.0 x4, PCIe 3.0 x4");
}

}  // namespace
}  // namespace strata
