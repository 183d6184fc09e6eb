#include "swap/pcie_link.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>

namespace strata {
namespace {

namespace fs = std::filesystem;

std::string read_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

/// Of "16.0 GT/s PCIe"; 0 for what is none.
int generation_of(const std::string& speed) {
  const double transfers = std::strtod(speed.c_str(), nullptr);
  if (transfers >= 64) return 6;
  if (transfers >= 32) return 5;
  if (transfers >= 16) return 4;
  if (transfers >= 8) return 3;
  if (transfers >= 5) return 2;
  return transfers >= 2.5 ? 1 : 0;
}

/// The PCI device that `device` belongs to.
std::optional<PcieLink> link_above(fs::path device) {
  for (; device.has_relative_path(); device = device.parent_path()) {
    const std::string speed = read_line(device / "current_link_speed");
    if (speed.empty()) continue;
    const PcieLink link{generation_of(speed),
                        std::atoi(read_line(device / "current_link_width").c_str())};
    if (link.generation > 0 && link.lanes > 0) return link;
    return {};
  }
  return {};
}

/// Controllers stand beside the namespaces where the kernel keeps several paths to a drive.
std::optional<PcieLink> link_of_subsystem(const fs::path& subsystem) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(subsystem, error)) {
    if (!entry.is_symlink(error)) continue;
    const fs::path controller = fs::canonical(entry.path(), error);
    if (error || !controller.filename().string().starts_with("nvme")) continue;
    if (const auto link = link_above(controller)) return link;
  }
  return {};
}

void collect(const fs::path& node, int depth, std::vector<PcieLink>& links) {
  std::error_code error;
  const fs::path device = fs::canonical(node, error);
  if (error || depth > 4) return;
  if (device.filename().string().starts_with("nvme")) {
    auto link = link_above(device);
    for (fs::path up = device; !link && up.has_relative_path(); up = up.parent_path()) {
      if (up.filename().string().starts_with("nvme-subsys")) link = link_of_subsystem(up);
    }
    if (link) links.push_back(*link);
    return;
  }
  for (const auto& entry : fs::directory_iterator(device / "slaves", error)) {
    collect(entry.path(), depth + 1, links);
  }
}

}  // namespace

std::vector<PcieLink> pcie_links(const std::string& block_device, const fs::path& root) {
  std::vector<PcieLink> links;
  if (block_device.empty()) return links;
  collect(root / "sys/class/block" / block_device, 0, links);
  return links;
}

std::string describe(const std::vector<PcieLink>& links) {
  if (links.empty()) return {};
  const auto one = [](const PcieLink& link) {
    return fmt::format("PCIe {}.0 x{}", link.generation, link.lanes);
  };
  const bool alike = std::all_of(links.begin(), links.end(),
                                 [&](const PcieLink& link) { return link == links.front(); });
  if (alike && links.size() > 1) return fmt::format("{} x {}", links.size(), one(links.front()));
  std::vector<std::string> words;
  for (const PcieLink& link : links) words.push_back(one(link));
  return fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace strata
