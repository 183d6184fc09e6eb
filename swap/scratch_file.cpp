#include "swap/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

constexpr double kHeadroom =
    1.05;  // filesystems slow down, and other programs fail, on a full drive

void check_directory(const std::string& directory) {
  struct stat facts {};
  if (stat(directory.c_str(), &facts) != 0) {
    throw UsageError(fmt::format("swap directory {}: {}; create it, or name another one", directory,
                                 strerror(errno)));
  }
  if (!S_ISDIR(facts.st_mode)) {
    throw UsageError(fmt::format("swap directory {} is a file; name a directory", directory));
  }
}

bool is_unsupported(int system_error) {
  return system_error == EOPNOTSUPP || system_error == EISDIR || system_error == EINVAL ||
         system_error == ENOENT;
}

/// For filesystems without O_TMPFILE: the name exists for an instant.
int open_and_unlink(const std::string& directory, int flags) {
  const std::string path =
      fmt::format("{}/.strata-scratch-{}-{:08x}", directory, getpid(), std::random_device{}());
  const int descriptor =
      open(path.c_str(), flags | O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  const int system_error = errno;
  // Some filesystems refuse direct I/O only after they have created the file.
  if (descriptor >= 0 || system_error == EINVAL) unlink(path.c_str());
  errno = system_error;
  return descriptor;
}

int open_scratch(const std::string& directory, int flags) {
  const int descriptor = open(directory.c_str(), flags | O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0 || !is_unsupported(errno)) return descriptor;
  return open_and_unlink(directory, flags);
}

}  // namespace

ScratchFile::ScratchFile(const std::string& directory, std::uint64_t bytes)
    : path_(directory + "/(scratch)"), bytes_(bytes) {
  check_directory(directory);
  check_room(directory);
  open_nameless(directory);
  try {
    reserve(directory);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

ScratchFile::~ScratchFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      bytes_(other.bytes_),
      direct_(other.direct_),
      warnings_(std::move(other.warnings_)) {}

void ScratchFile::check_room(const std::string& directory) const {
  struct statvfs facts {};
  if (statvfs(directory.c_str(), &facts) != 0) {
    throw UsageError(
        describe_errno(fmt::format("free space of swap directory {}", directory), errno));
  }
  const std::uint64_t free = std::uint64_t{facts.f_bavail} * facts.f_frsize;
  if (static_cast<double>(bytes_) * kHeadroom <= static_cast<double>(free)) return;
  throw UsageError(fmt::format(
      "swap directory {}: {} bytes are needed and {} are free, of which 5% stay free; make "
      "room, add a swap directory on another drive, or give Strata more DRAM",
      directory, bytes_, free));
}

void ScratchFile::open_nameless(const std::string& directory) {
  descriptor_ = open_scratch(directory, O_DIRECT);
  if (descriptor_ < 0 && errno == EINVAL) {
    direct_ = false;
    warnings_.push_back(
        fmt::format("swap directory {}: its filesystem has no direct I/O, so swapped "
                    "bytes pass through the page cache; a local ext4 or xfs is faster",
                    directory));
    descriptor_ = open_scratch(directory, 0);
  }
  if (descriptor_ < 0) {
    throw UsageError(
        fmt::format("swap directory {}: no file can be created there ({}); check its "
                    "permissions, or name another one",
                    directory, strerror(errno)));
  }
  struct statfs facts {};
  if (fstatfs(descriptor_, &facts) == 0 && facts.f_type == TMPFS_MAGIC) {
    warnings_.push_back(
        fmt::format("swap directory {} is a tmpfs: its bytes lie in the memory that "
                    "swapping should save; name a directory on a drive",
                    directory));
  }
}

void ScratchFile::reserve(const std::string& directory) {
  if (bytes_ == 0) return;
  const auto length = static_cast<off_t>(bytes_);
  int result = 0;
  do {
    // Not posix_fallocate: where the filesystem cannot reserve, that writes every block.
    result = fallocate(descriptor_, 0, 0, length) == 0 ? 0 : errno;
  } while (result == EINTR);
  if (result == EOPNOTSUPP) {
    warnings_.push_back(
        fmt::format("swap directory {}: its filesystem cannot reserve space; a drive that "
                    "fills up later ends the job",
                    directory));
    result = ftruncate(descriptor_, length) == 0 ? 0 : errno;
  }
  if (result == 0) return;
  throw UsageError(
      fmt::format("swap directory {}: {} bytes could not be reserved ({}); make room, raise "
                  "the quota or the file size limit (ulimit -f), or name another one",
                  directory, bytes_, strerror(result)));
}

}  // namespace strata
