#pragma once

// Internal: what all entries of the cache have in common. Not installed.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/file.h"

namespace strata {

// cache/KIND/KEY/ has a lock, what was made, and entry.json, which is written last: without it, an
// entry is not complete and is made anew. Its "names" tell people what it was made of.
inline constexpr const char* kTokenEntries = "tokens";
inline constexpr const char* kWeightEntries = "weights";
inline constexpr const char* kEntryFacts = "entry.json";
inline constexpr std::size_t kMostEntryBytes = 16 << 20;
inline constexpr int kEntryDepth = 8;

/// Keeps an entry's directory for those who make or read it. Of threads, too: each has its own.
/// Move-only; lets go when it goes.
class EntryLock {
 public:
  /// Makes the directory, and locks nothing. @throws IoError
  explicit EntryLock(std::filesystem::path directory);
  EntryLock(EntryLock&& other) noexcept;
  EntryLock& operator=(EntryLock&& other) noexcept;
  ~EntryLock();

  /// To read: blocks while somebody makes the entry. @throws IoError
  void share();
  /// To make the entry: blocks while others read or make it. Lets go of what it had before.
  /// @throws IoError
  void own();
  /// The same where nobody has to be waited for. @return whether nobody had
  bool try_own();
  void release() noexcept;

 private:
  void open_file();
  void lock(int how);

  std::filesystem::path directory_;
  int descriptor_ = -1;
};

/// "00c0ffee...": how keys and hashes are written.
std::string hexadecimal(std::uint64_t hash);
/// Of bytes [begin, end), piece by piece. @throws IoError
std::uint64_t hash_range(const ReadableFile& file, std::uint64_t begin, std::uint64_t end);
/// When the file was last changed, in nanoseconds. @throws IoError
std::string change_time(const std::filesystem::path& file);

}  // namespace strata
