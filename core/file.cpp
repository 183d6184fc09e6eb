#include "core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "core/error.h"

namespace strata {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

void close_quietly(int& descriptor) noexcept {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

}  // namespace

ReadableFile::ReadableFile(const std::filesystem::path& path) : path_(path.string()) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw IoError("cannot open", path_, 0, errno);
  struct stat facts {};
  const bool known = ::fstat(descriptor_, &facts) == 0;
  if (!known || !S_ISREG(facts.st_mode)) {
    close_quietly(descriptor_);
    throw FormatError(path_ + ": not a regular file");
  }
  size_ = static_cast<std::uint64_t>(facts.st_size);
}

ReadableFile::ReadableFile(ReadableFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

ReadableFile& ReadableFile::operator=(ReadableFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

ReadableFile::~ReadableFile() { close_quietly(descriptor_); }

void ReadableFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw IoError("cannot read", path_, offset, got < 0 ? errno : 0);
    offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

DurableFile::DurableFile(std::filesystem::path target, std::uint64_t size)
    : target_(std::move(target)),
      partial_(folder_of(target_) / fmt::format(".{}.partial", target_.filename().string())) {
  descriptor_ =
      ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw IoError("cannot create", partial_.string(), 0, errno);
  const int failed = size == 0 ? 0 : ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size));
  if (failed != 0 && failed != EOPNOTSUPP && failed != EINVAL) {
    abandon();
    throw IoError(fmt::format("cannot reserve {} bytes", size), partial_.string(), 0, failed);
  }
}

DurableFile::DurableFile(DurableFile&& other) noexcept
    : target_(std::move(other.target_)),
      partial_(std::move(other.partial_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      published_(std::exchange(other.published_, true)) {}

DurableFile& DurableFile::operator=(DurableFile&& other) noexcept {
  std::swap(target_, other.target_);
  std::swap(partial_, other.partial_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(published_, other.published_);
  return *this;
}

DurableFile::~DurableFile() {
  if (!published_) abandon();
}

void DurableFile::abandon() noexcept {
  close_quietly(descriptor_);
  ::unlink(partial_.c_str());
  published_ = true;
}

void DurableFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw IoError("cannot write", partial_.string(), offset, done < 0 ? errno : EIO);
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void DurableFile::sync() {
  if (::fsync(descriptor_) != 0) throw IoError("cannot sync", partial_.string(), 0, errno);
  const int failed = ::close(std::exchange(descriptor_, -1));
  if (failed != 0) throw IoError("cannot close", partial_.string(), 0, errno);
}

void DurableFile::publish() {
  expects(descriptor_ < 0 && !published_, "a file is published once, after sync()");
  if (::rename(partial_.c_str(), target_.c_str()) != 0) {
    throw IoError("cannot give the finished file its name", target_.string(), 0, errno);
  }
  published_ = true;
}

void sync_directory(const std::filesystem::path& directory) {
  int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw IoError("cannot open", directory.string(), 0, errno);
  const int failed = ::fsync(descriptor) == 0 ? 0 : errno;
  close_quietly(descriptor);
  if (failed != 0) throw IoError("cannot sync", directory.string(), 0, failed);
}

void write_text_file(const std::filesystem::path& file, std::string_view text) {
  DurableFile out(file, text.size());
  out.write(0, std::as_bytes(std::span(text)));
  out.sync();
  out.publish();
  sync_directory(folder_of(file));
}

}  // namespace strata
