#include "core/cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "core/cache_entry.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json_file.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kLock = "lock";
constexpr std::uint64_t kHashedAtOnce = 1 << 20;

/// Whether a process makes or reads the entry.
bool is_locked(const fs::path& directory) {
  const int lock = open((directory / kLock).c_str(), O_RDWR | O_CLOEXEC);
  if (lock < 0) return false;
  const bool locked = flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(lock);
  return locked;
}

std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t bytes = 0;
  for (const fs::directory_entry& file : fs::directory_iterator(directory)) {
    if (file.is_regular_file()) bytes += file.file_size();
  }
  return bytes;
}

CacheEntry examine(const fs::path& directory) {
  CacheEntry entry;
  entry.directory = directory;
  entry.bytes = bytes_in(directory);
  entry.in_use = is_locked(directory);
  const fs::path facts = directory / kEntryFacts;
  entry.complete = fs::exists(facts);
  if (!entry.complete) return entry;
  try {
    const json read =
        parse_json_object(read_text_file(facts, kMostEntryBytes), facts.string(), kEntryDepth);
    for (const json& name : read.value("names", json::array())) {
      entry.description += (entry.description.empty() ? "" : ", ") + name.get<std::string>();
    }
  } catch (const std::exception&) {
    entry.complete = false;  // listed so that it can be removed
  }
  return entry;
}

}  // namespace

fs::path default_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return fs::path(cache) / "strata";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return fs::path(home) / ".cache" / "strata";
  }
  throw UsageError("--cache: neither XDG_CACHE_HOME nor HOME is set; name a directory");
}

std::vector<CacheEntry> list_cache(const fs::path& cache) {
  std::vector<CacheEntry> entries;
  for (const char* kind : {kTokenEntries, kWeightEntries}) {
    std::error_code none;
    for (const fs::directory_entry& directory : fs::directory_iterator(cache / kind, none)) {
      if (directory.is_directory()) entries.push_back(examine(directory.path()));
    }
  }
  std::ranges::sort(entries, {}, &CacheEntry::directory);
  return entries;
}

void remove_entry(const CacheEntry& entry) {
  std::error_code failure;
  fs::remove(entry.directory / kEntryFacts, failure);  // first: what is left is not complete
  fs::remove_all(entry.directory, failure);
  if (failure) throw IoError("cannot remove", entry.directory.string(), 0, failure.value());
}

EntryLock::EntryLock(fs::path directory) : directory_(std::move(directory)) { open_file(); }

EntryLock::EntryLock(EntryLock&& other) noexcept
    : directory_(std::move(other.directory_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

EntryLock& EntryLock::operator=(EntryLock&& other) noexcept {
  std::swap(directory_, other.directory_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

EntryLock::~EntryLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

void EntryLock::open_file() {
  std::error_code failure;
  fs::create_directories(directory_, failure);
  if (failure) {
    throw IoError("cannot make the directory; choose another with --cache", directory_.string(), 0,
                  failure.value());
  }
  if (descriptor_ >= 0) close(descriptor_);
  const fs::path file = directory_ / kLock;
  descriptor_ = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor_ < 0) throw IoError("cannot open", file.string(), 0, errno);
}

void EntryLock::lock(int how) {
  const fs::path file = directory_ / kLock;
  for (;;) {
    while (flock(descriptor_, how) != 0) {
      if (errno != EINTR) throw IoError("cannot lock", file.string(), 0, errno);
    }
    struct stat named {};
    struct stat locked {};
    const bool there = stat(file.c_str(), &named) == 0 && fstat(descriptor_, &locked) == 0;
    if (there && named.st_dev == locked.st_dev && named.st_ino == locked.st_ino) return;
    open_file();  // the entry was removed while this waited
  }
}

void EntryLock::share() { lock(LOCK_SH); }
void EntryLock::own() { lock(LOCK_EX); }
bool EntryLock::try_own() { return flock(descriptor_, LOCK_EX | LOCK_NB) == 0; }
void EntryLock::release() noexcept { flock(descriptor_, LOCK_UN); }

std::string hexadecimal(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

std::uint64_t hash_range(const ReadableFile& file, std::uint64_t begin, std::uint64_t end) {
  std::uint64_t hash = 0;
  std::vector<std::byte> piece;
  for (; begin < end; begin += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min(kHashedAtOnce, end - begin)));
    file.read(begin, piece);
    hash = hash_bytes(piece, hash);
  }
  return hash;
}

std::string change_time(const fs::path& file) {
  struct stat facts {};
  if (stat(file.c_str(), &facts) != 0) {
    throw IoError("cannot be examined", file.string(), 0, errno);
  }
  return fmt::format("{}.{:09}", facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
}

}  // namespace strata
