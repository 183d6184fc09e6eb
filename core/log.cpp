#include "core/log.h"

#include <unistd.h>

namespace strata {
namespace {

void write_line(std::FILE* file, std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), file);
  std::fputc('\n', file);
  std::fflush(file);
}

}  // namespace

Log::Log(int rank, std::FILE* output, std::FILE* errors)
    : output_(output),
      errors_(errors),
      prints_(rank == 0),
      terminal_(prints_ && isatty(fileno(errors)) == 1) {}

Log::~Log() { erase_status(); }

void Log::info(std::string_view line) {
  if (!prints_) return;
  const std::scoped_lock lock(mutex_);
  erase_status();
  write_line(output_, line);
  draw_status();
}

void Log::warn(std::string_view line) {
  if (!prints_) return;
  const std::scoped_lock lock(mutex_);
  if (!warned_.emplace(line).second) return;
  erase_status();
  write_line(errors_, std::string("strata: warning: ").append(line));
  draw_status();
}

void Log::status(std::string_view text) {
  if (!terminal_) return;
  const std::scoped_lock lock(mutex_);
  erase_status();
  status_ = text;
  draw_status();
}

// "\r" and "erase to the end of the line" leave the cursor where the next line begins.
void Log::erase_status() {
  if (status_.empty()) return;
  std::fputs("\r\033[K", errors_);
  std::fflush(errors_);
}

void Log::draw_status() {
  if (status_.empty()) return;
  std::fwrite(status_.data(), 1, status_.size(), errors_);
  std::fflush(errors_);
}

}  // namespace strata
