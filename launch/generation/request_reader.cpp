#include "launch/generation/request_reader.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/hash.h"

namespace strata {

RequestReader::RequestReader(const std::filesystem::path& path, bool skip_bad)
    : lines_(path), skip_bad_(skip_bad) {}

void RequestReader::expect_new(const NumberedRow& row) {
  if (names_.insert(hash_text(row.name())).second) return;
  throw FormatError(
      row.row.id.empty()
          ? fmt::format("{}: has no id, and its number {} is the id of another row; give it one",
                        row.where, row.number)
          : fmt::format("{}: the id \"{:.100}\" occurred before; give each row its own", row.where,
                        row.row.id));
}

std::optional<NumberedRow> RequestReader::next() {
  while (const std::optional<std::string> line = lines_.next()) {
    NumberedRow result;
    result.where = lines_.where();
    result.number = number_;
    result.fingerprint = hash_text(*line);
    try {
      result.row = parse_request_row(*line, result.where);
      expect_new(result);
    } catch (const FormatError& error) {
      if (!skip_bad_) throw;
      if (bad_.count++ == 0) bad_.first = error.what();
      continue;
    }
    ++number_;
    return result;
  }
  return std::nullopt;
}

}  // namespace strata
