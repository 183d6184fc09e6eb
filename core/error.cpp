#include "core/error.h"

#include <fmt/format.h>

#include <cstring>

namespace strata {
namespace {

std::string io_message(const std::string& message, const std::string& path, std::uint64_t offset,
                       int system_error) {
  const char* cause = system_error == 0 ? "the transfer was cut short" : strerror(system_error);
  return fmt::format("{}: {} at offset {}: {}", path, message, offset, cause);
}

}  // namespace

IoError::IoError(const std::string& message, std::string path, std::uint64_t offset,
                 int system_error)
    : Error(io_message(message, path, offset, system_error)),
      path_(std::move(path)),
      offset_(offset),
      system_error_(system_error) {}

void expects(bool condition, std::string_view sentence, Where where) {
  if (!condition) throw Error(fmt::format("{} ({}:{})", sentence, where.file, where.line));
}

std::string describe_errno(std::string_view what, int system_error) {
  return fmt::format("{}: {}", what, strerror(system_error));
}

}  // namespace strata
