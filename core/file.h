#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace strata {

/// A file opened for reading. Move-only; closes itself. Reads at stated offsets, so concurrent
/// calls on one object are safe.
class ReadableFile {
 public:
  /// @throws IoError if it cannot be opened, FormatError if it is not a regular file
  explicit ReadableFile(const std::filesystem::path& path);
  ReadableFile(ReadableFile&& other) noexcept;
  ReadableFile& operator=(ReadableFile&& other) noexcept;
  ~ReadableFile();

  const std::string& path() const noexcept { return path_; }
  std::uint64_t size() const noexcept { return size_; }  ///< bytes, when it was opened

  /// Blocks until all of `out` came from `offset` on. @throws IoError, also when the file ends
  /// before
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// A file that appears under its name only when it is complete and durable: written beside it as
/// ".{name}.partial", synced, renamed. Move-only. Dropped before publish(), it leaves nothing
/// behind.
class DurableFile {
 public:
  /// Reserves `size` bytes, so that a full disk is known before the work.
  /// @throws IoError
  DurableFile(std::filesystem::path target, std::uint64_t size);
  DurableFile(DurableFile&& other) noexcept;
  DurableFile& operator=(DurableFile&& other) noexcept;
  ~DurableFile();

  /// Blocks until the bytes are handed to the kernel. Concurrent calls are safe. @throws IoError
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Makes the content durable and closes the file; it still has its temporary name. @throws
  /// IoError
  void sync();
  /// The file gets its name, replacing what was there. Durable after sync_directory().
  /// @pre sync() was called. @throws IoError
  void publish();

 private:
  void abandon() noexcept;

  std::filesystem::path target_;
  std::filesystem::path partial_;
  int descriptor_ = -1;
  bool published_ = false;
};

/// Makes renames in `directory` durable. @throws IoError
void sync_directory(const std::filesystem::path& directory);

/// Replaces `file` by `text`: old or new content after a crash at any moment, never a mixture.
/// @throws IoError
void write_text_file(const std::filesystem::path& file, std::string_view text);

}  // namespace strata
