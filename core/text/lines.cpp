#include "core/text/lines.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace strata {
namespace {

constexpr std::uint64_t kBlock = 64 << 10;

}  // namespace

std::string read_text(const ReadableFile& file, std::uint64_t begin, std::uint64_t end) {
  std::string text(static_cast<std::size_t>(end - begin), '\0');
  file.read(begin, std::as_writable_bytes(std::span(text)));
  return text;
}

std::optional<std::uint64_t> next_line(const ReadableFile& file, std::uint64_t offset,
                                       std::uint64_t end) {
  if (offset >= end) return std::nullopt;
  if (offset == 0) return 0;
  for (std::uint64_t at = offset - 1; at + 1 < end; at += kBlock) {
    const std::string text = read_text(file, at, std::min(at + kBlock, end - 1));
    const std::size_t found = text.find('\n');
    if (found != std::string::npos) return at + found + 1;
  }
  return std::nullopt;
}

std::string line_name(const ReadableFile& file, std::uint64_t offset) {
  std::int64_t line = 1;
  for (std::uint64_t at = 0; at < offset; at += kBlock) {
    const std::string text = read_text(file, at, std::min(at + kBlock, offset));
    line += std::count(text.begin(), text.end(), '\n');
  }
  return fmt::format("{}:{}", file.path(), line);
}

}  // namespace strata
