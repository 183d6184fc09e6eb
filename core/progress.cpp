#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace strata {
namespace {

constexpr int kBarColumns = 20;
constexpr auto kDrawInterval = std::chrono::milliseconds(100);
constexpr std::array<const char*, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

std::string clock_text(double seconds) {
  const auto whole = static_cast<long long>(std::clamp(seconds, 0.0, 3.6e8));
  if (whole < 3600) return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole % 3600 / 60, whole % 60);
}

std::string bar(double fraction) {
  const int eighths =
      static_cast<int>(std::floor(std::clamp(fraction, 0.0, 1.0) * kBarColumns * 8));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  text += kEighths[static_cast<std::size_t>(eighths % 8)];
  const int filled = eighths / 8 + (eighths % 8 == 0 ? 0 : 1);
  return text + std::string(static_cast<std::size_t>(kBarColumns - filled), ' ');
}

/// The first `width` characters: bytes that continue a UTF-8 character do not count.
std::string first_columns(const std::string& text, int width) {
  int columns = 0;
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    const bool begins_character = (static_cast<unsigned char>(text[end]) & 0xc0u) != 0x80u;
    if (begins_character && ++columns > width) break;
  }
  return text.substr(0, end);
}

int terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string progress_line(std::string_view unit, std::uint64_t done, std::uint64_t total,
                          double seconds, std::string_view note, int width) {
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const std::string speed = rate <= 0  ? fmt::format("? {}/s", unit)
                            : rate < 1 ? fmt::format("{:.2f} s/{}", 1 / rate, unit)
                                       : fmt::format("{:.2f} {}/s", rate, unit);
  std::string text;
  if (total == 0) {
    text = fmt::format("{} {} [{}, {}]", done, unit, clock_text(seconds), speed);
  } else {
    const double fraction = static_cast<double>(done) / static_cast<double>(total);
    const std::string left =
        rate > 0 ? clock_text(static_cast<double>(total - std::min(done, total)) / rate) : "?";
    text = fmt::format("{:3.0f}%|{}| {}/{} [{}<{}, {}]", std::floor(fraction * 100), bar(fraction),
                       done, total, clock_text(seconds), left, speed);
  }
  if (!note.empty()) text += fmt::format(" {}", note);
  return first_columns(text, width);
}

Progress::Progress(Log& log, std::string unit, std::uint64_t total, bool enabled)
    : log_(log),
      unit_(std::move(unit)),
      total_(total),
      enabled_(enabled && log.has_terminal()),
      begin_(Clock::now()),
      next_draw_(begin_) {}

Progress::~Progress() {
  if (enabled_) log_.status({});
}

void Progress::update(std::uint64_t done, std::string_view note) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now < next_draw_ && done != total_) return;
  next_draw_ = now + kDrawInterval;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  log_.status(progress_line(unit_, done, total_, seconds, note, terminal_columns() - 1));
}

}  // namespace strata
