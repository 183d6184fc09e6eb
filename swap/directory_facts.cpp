#include "swap/directory_facts.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <utility>

#include "swap/scratch_file.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr long kXfsMagic = 0x58465342;
constexpr long kZfsMagic = 0x2fc12fc1;

std::string filesystem_name(long magic) {
  constexpr std::pair<long, const char*> kNames[] = {
      {EXT4_SUPER_MAGIC, "ext4"},
      {kXfsMagic, "xfs"},
      {BTRFS_SUPER_MAGIC, "btrfs"},
      {TMPFS_MAGIC, "tmpfs"},
      {OVERLAYFS_SUPER_MAGIC, "overlay"},
      {NFS_SUPER_MAGIC, "nfs"},
      {F2FS_SUPER_MAGIC, "f2fs"},
      {FUSE_SUPER_MAGIC, "fuse"},
      {kZfsMagic, "zfs"},
      {RAMFS_MAGIC, "ramfs"},
      {CEPH_SUPER_MAGIC, "ceph"},
  };
  for (const auto& [known, name] : kNames) {
    if (magic == known) return name;
  }
  return fmt::format("{:#x}", magic);
}

/// The whole drive for a partition. Empty where the filesystem has no block device of its own.
std::string block_device_name(dev_t device) {
  std::error_code ignored;
  const fs::path node =
      fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)), ignored);
  if (node.empty()) return {};
  return fs::exists(node / "partition", ignored) ? node.parent_path().filename().string()
                                                 : node.filename().string();
}

/// "Percentage used" of the health log of an NVMe drive; not given without the right to ask.
std::optional<double> read_wear(const std::string& block_device) {
  if (!block_device.starts_with("nvme")) return {};
  const int descriptor = open(("/dev/" + block_device).c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return {};
  constexpr unsigned kHealthLog = 2;
  constexpr unsigned kGetLogPage = 2;
  alignas(4096) std::array<unsigned char, 512> log{};
  nvme_admin_cmd command{};
  command.opcode = kGetLogPage;
  command.nsid = 0xffffffffu;
  command.addr = reinterpret_cast<std::uintptr_t>(log.data());
  command.data_len = static_cast<unsigned>(log.size());
  command.cdw10 = kHealthLog | ((static_cast<unsigned>(log.size()) / 4 - 1) << 16);
  const bool read = ioctl(descriptor, NVME_IOCTL_ADMIN_CMD, &command) == 0;
  close(descriptor);
  constexpr std::size_t kPercentageUsed = 5;
  if (!read) return {};
  return log[kPercentageUsed] / 100.0;
}

}  // namespace

DirectoryFacts probe_directory(const std::string& path) {
  const ScratchFile file(path, 0);
  DirectoryFacts facts;
  facts.path = path;
  facts.takes_direct_io = file.is_direct();
  struct statfs filesystem {};
  if (fstatfs(file.descriptor(), &filesystem) == 0) {
    facts.filesystem = filesystem_name(static_cast<long>(filesystem.f_type));
    facts.is_tmpfs = filesystem.f_type == TMPFS_MAGIC || filesystem.f_type == RAMFS_MAGIC;
    facts.free_bytes =
        std::uint64_t{filesystem.f_bavail} * static_cast<std::uint64_t>(filesystem.f_bsize);
  }
  struct statx extended {};
  if (statx(file.descriptor(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 &&
      (extended.stx_mask & STATX_DIOALIGN) != 0) {
    facts.memory_alignment = extended.stx_dio_mem_align;
    facts.offset_alignment = extended.stx_dio_offset_align;
  }
  struct stat plain {};
  if (fstat(file.descriptor(), &plain) == 0) facts.block_device = block_device_name(plain.st_dev);
  facts.wear = read_wear(facts.block_device);
  return facts;
}

}  // namespace strata
