#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strata {

/// A file of fixed size that has no name: nobody else can open it, and the system frees its space
/// when the process ends, however it ends. Owns the descriptor; mode 0600, not inherited by child
/// processes.
///
/// Uses direct I/O where the filesystem takes it, and its space is reserved at once where the
/// filesystem can do that, so that a full drive is discovered here.
class ScratchFile {
 public:
  /// @throws UsageError naming the directory and the remedy: it does not exist, is no directory,
  /// cannot be written, or has no room for `bytes` and 5% of headroom
  ScratchFile(const std::string& directory, std::uint64_t bytes);
  ~ScratchFile();
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  int descriptor() const noexcept { return descriptor_; }
  const std::string& path() const noexcept { return path_; }  ///< for messages
  std::uint64_t bytes() const noexcept { return bytes_; }
  bool is_direct() const noexcept { return direct_; }
  /// What makes this directory a poor place for swapping, in sentences.
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }

 private:
  void check_room(const std::string& directory) const;
  void open_nameless(const std::string& directory);
  void reserve(const std::string& directory);

  int descriptor_ = -1;
  std::string path_;
  std::uint64_t bytes_;
  bool direct_ = true;
  std::vector<std::string> warnings_;
};

}  // namespace strata
