#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_set>

#include "launch/generation/line_reader.h"
#include "launch/generation/request_rows.h"

namespace strata {

/// A row of a file with its place there.
struct NumberedRow {
  RequestRow row = {};
  std::int64_t number = 0;  ///< from 0, blank lines and bad rows not counted
  std::string where = {};   ///< "rows.jsonl:17"
  /// Of the line's bytes: tells whether a result was made from this row.
  std::uint64_t fingerprint = 0;

  /// The row's id; of a row without one its number.
  std::string name() const { return row.id.empty() ? std::to_string(number) : row.id; }
};

/// Rows that were passed over because they are bad.
struct BadRows {
  std::int64_t count = 0;
  std::string first = {};  ///< what is wrong with the first of them
};

/// Reads requests row by row. Beside a row it keeps a hash of each id, to find
/// those that occur twice.
class RequestReader {
 public:
  /// @param path "-": standard input. @param skip_bad passes over rows that cannot be read and ids
  /// that occurred before, and counts them. @throws IoError
  RequestReader(const std::filesystem::path& path, bool skip_bad);

  /// The next row; none: there is no more.
  /// @throws FormatError naming the line, unless bad rows are passed over; IoError
  std::optional<NumberedRow> next();
  const BadRows& bad() const noexcept { return bad_; }

 private:
  void expect_new(const NumberedRow& row);

  LineReader lines_;
  bool skip_bad_;
  std::int64_t number_ = 0;
  BadRows bad_;
  std::unordered_set<std::uint64_t> names_;  // hashes
};

}  // namespace strata
