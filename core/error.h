#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace strata {

/// The line of code a check was written on. Fills itself in when it is a default argument.
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) noexcept {
    return {file, line};
  }
};

/// Something that ends the operation. The message says what failed, where, and what to do about it;
/// main() prints it once and ends the job on every rank.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the user asked for cannot be done: a flag, a configuration key, a budget. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// A file from outside is not what it claims to be. The message starts with its path.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// A transfer failed. `system_error` is an errno value, or 0 when the transfer was short for good.
class IoError : public Error {
 public:
  IoError(const std::string& message, std::string path, std::uint64_t offset, int system_error);

  const std::string& path() const noexcept { return path_; }
  std::uint64_t offset() const noexcept { return offset_; }  ///< bytes into the file
  int system_error() const noexcept { return system_error_; }

 private:
  std::string path_;
  std::uint64_t offset_;
  int system_error_;
};

/// A caller's mistake: always checked, also in release builds.
/// @throws Error with `sentence` and the caller's line
void expects(bool condition, std::string_view sentence, Where where = Where::here());

/// "what: No such file or directory" for the errno value `system_error`.
std::string describe_errno(std::string_view what, int system_error);

}  // namespace strata
