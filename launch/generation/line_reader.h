#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace strata {

/// The lines of a file, or of standard input, that are not blank, one after the other. Keeps one
/// line and a piece of the file in memory.
class LineReader {
 public:
  /// @param path "-": standard input. @throws IoError if it cannot be opened
  explicit LineReader(const std::filesystem::path& path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line, without its end; none: there is no more. Blocks on standard input.
  /// @throws IoError; FormatError for a line of more than 64 MiB
  std::optional<std::string> next();
  /// "rows.jsonl:17" of the line that next() gave last; of standard input "standard input:17".
  std::string where() const;
  /// Whether that line had an end, which the last one of a file may lack.
  bool ended() const noexcept { return ended_; }
  /// Bytes up to and with that line and its end.
  std::uint64_t offset() const noexcept { return offset_; }

 private:
  bool fill();

  std::string name_;
  int descriptor_ = 0;
  std::int64_t line_ = 0;
  bool ended_ = true;
  std::uint64_t offset_ = 0;
  std::vector<char> piece_;
  std::size_t begin_ = 0, end_ = 0;  // of what is left of the piece
};

}  // namespace strata
