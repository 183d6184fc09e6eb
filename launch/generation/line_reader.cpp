#include "launch/generation/line_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::size_t kPieceBytes = 64 << 10;
constexpr std::size_t kLongestLine = 64 << 20;

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r") == std::string::npos;
}

}  // namespace

LineReader::LineReader(const std::filesystem::path& path)
    : name_(path == "-" ? "standard input" : path.string()), piece_(kPieceBytes) {
  if (path == "-") return;
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw IoError("cannot open", name_, 0, errno);
}

LineReader::~LineReader() {
  if (descriptor_ > 0) ::close(descriptor_);
}

bool LineReader::fill() {
  ssize_t got = 0;
  do {
    got = ::read(descriptor_, piece_.data(), piece_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw IoError("cannot read", name_, 0, errno);
  begin_ = 0;
  end_ = static_cast<std::size_t>(got);
  return got > 0;
}

std::optional<std::string> LineReader::next() {
  std::string line;
  bool begun = false;
  while (begin_ < end_ || fill()) {
    if (!begun) ++line_;
    begun = true;
    const char* const from = piece_.data() + begin_;
    const char* const limit = piece_.data() + end_;
    const char* const end = std::find(from, limit, '\n');
    ended_ = end != limit;
    line.append(from, end);
    const std::size_t taken = static_cast<std::size_t>(end - from) + (ended_ ? 1 : 0);
    begin_ += taken;
    offset_ += taken;
    if (line.size() > kLongestLine) {
      throw FormatError(
          fmt::format("{}: a row of more than {} MiB; is this JSONL, with one object "
                      "on each line?",
                      where(), kLongestLine >> 20));
    }
    if (!ended_) continue;
    if (!is_blank(line)) return line;
    line.clear();
    begun = false;
  }
  if (is_blank(line)) return std::nullopt;
  return line;
}

std::string LineReader::where() const { return fmt::format("{}:{}", name_, line_); }

}  // namespace strata
