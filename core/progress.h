#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/log.h"

namespace strata {

/// " 42%|████▏     | 84/200 [00:31<00:43, 2.71 step/s] loss 2.104", at most `width` columns.
/// `total` 0 means unknown: no percentage, bar or remaining time.
std::string progress_line(std::string_view unit, std::uint64_t done, std::uint64_t total,
                          double seconds, std::string_view note, int width);

/// A progress bar in the status line of a Log: drawn at most ten times a second, gone when the
/// object is. Does nothing where the Log has no terminal, or when `enabled` is false
/// (--no_progress). One thread; the Log must outlive it.
class Progress {
 public:
  Progress(Log& log, std::string unit, std::uint64_t total, bool enabled = true);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` units are complete; `note` follows the bar.
  void update(std::uint64_t done, std::string_view note = {});

 private:
  using Clock = std::chrono::steady_clock;

  Log& log_;
  std::string unit_;
  std::uint64_t total_;
  bool enabled_;
  Clock::time_point begin_;
  Clock::time_point next_draw_;
};

}  // namespace strata
