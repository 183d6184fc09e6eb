#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace strata {

/// How an NVMe drive is attached now; what it could do may be more.
struct PcieLink {
  int generation = 0;  ///< 3: 8 GT/s a lane, 4: 16, 5: 32, 6: 64
  int lanes = 0;

  bool operator==(const PcieLink&) const = default;
};

/// The links of a block device's drives: one of an NVMe drive, several of what lies over several of
/// them (md, device mapper). Empty for what the system does not show. `root` is where /sys is
/// looked for.
std::vector<PcieLink> pcie_links(const std::string& block_device,
                                 const std::filesystem::path& root = "/");

/// "PCIe 4.0 x4", "2 x PCIe 5.0 x4"; empty without links.
std::string describe(const std::vector<PcieLink>& links);

}  // namespace strata
