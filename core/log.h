#pragma once

#include <cstdio>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace strata {

/// Where a job speaks to its user: lines on standard output, warnings on standard error, and one
/// status line at the bottom of a terminal. Only rank 0 prints; on the others every call does
/// nothing.
///
/// Thread-safe. A call blocks as long as its write does. Failed writes are ignored: a closed pipe
/// must not end a training job.
class Log {
 public:
  explicit Log(int rank, std::FILE* output = stdout, std::FILE* errors = stderr);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  bool prints() const noexcept { return prints_; }
  /// True when a status line would be seen: rank 0 and a terminal.
  bool has_terminal() const noexcept { return terminal_; }

  void info(std::string_view line);
  /// "strata: warning: line". The same text is printed once in the life of the Log.
  void warn(std::string_view line);
  /// Replaces the status line; an empty text removes it. Nothing happens without a terminal.
  void status(std::string_view text);

 private:
  void erase_status();
  void draw_status();

  std::FILE* output_;
  std::FILE* errors_;
  bool prints_;
  bool terminal_;
  std::mutex mutex_;
  std::string status_;
  std::set<std::string, std::less<>> warned_;
};

}  // namespace strata
