#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/text/document_reader.h"
#include "core/text/lines.h"
#include "core/text/shuffle.h"

namespace strata {
namespace {

constexpr std::uint64_t kPieceBytes = 1 << 20;
constexpr std::size_t kLongestRow = 64 << 20;

/// The rows that begin in [begin, begin + kPieceBytes) of a file.
struct Part {
  std::size_t file;
  std::uint64_t begin;
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

/// The row that begins at `at`, however long.
std::string row_at(const ReadableFile& bytes, std::uint64_t at, std::uint64_t end) {
  std::string row;
  while (at + row.size() < end) {
    const std::uint64_t from = at + row.size();
    const std::string more =
        read_text(bytes, from, std::min<std::uint64_t>(from + (64 << 10), end));
    const std::size_t found = more.find('\n');
    row.append(more, 0, found);
    if (found != std::string::npos) break;
    if (row.size() > kLongestRow) {
      throw FormatError(
          fmt::format("{}: a row of more than {} MiB; is this JSONL, with one "
                      "object on each line?",
                      line_name(bytes, at), kLongestRow >> 20));
    }
  }
  return row;
}

struct FirstRow {
  std::string row;  ///< empty: there is none
  std::string where;
};

/// The first that is not blank.
FirstRow first_row(const ReadableFile& bytes, const DataFile& file) {
  for (std::uint64_t at = file.begin; at < file.end;) {
    std::string row = row_at(bytes, at, file.end);
    if (is_blank(row)) {
      at += row.size() + 1;
      continue;
    }
    std::string where = line_name(bytes, at);
    if (row[row.find_first_not_of(" \t\r")] == '[') {
      throw FormatError(fmt::format(
          "{}: a JSON array; rows are objects, one on each line: jq -c '.[]' {} > rows.jsonl",
          where, bytes.path()));
    }
    return {std::move(row), std::move(where)};
  }
  return {};
}

class RowFileReader final : public DocumentReader {
 public:
  RowFileReader(std::vector<DataFile> files, RowForm form, const Tokenizer& tokenizer,
                const ChatTemplate* chat, const RowOptions& options)
      : files_(std::move(files)), rows_(form, tokenizer, chat, options) {
    for (std::size_t f = 0; f < files_.size(); ++f) {
      for (std::uint64_t at = files_[f].begin; at < files_[f].end; at += kPieceBytes) {
        parts_.push_back({f, at});
      }
    }
  }

  std::int64_t pieces() const noexcept override { return static_cast<std::int64_t>(parts_.size()); }

  void read(std::int64_t piece, const Take& take) override {
    const auto count = static_cast<std::int64_t>(parts_.size());
    const Part& part = parts_[static_cast<std::size_t>(shuffled(piece, count, 0, 0))];
    const DataFile& file = files_[part.file];
    const ReadableFile bytes(file.path);
    const std::uint64_t limit = std::min(part.begin + kPieceBytes, file.end);
    std::uint64_t at = part.begin;
    if (at != file.begin) {
      const auto first = next_line(bytes, at, limit);
      if (!first) return;
      at = *first;
    }
    const std::string text = read_text(bytes, at, limit);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find('\n', begin);
      if (end == std::string::npos) {
        take_row(bytes, at + begin, row_at(bytes, at + begin, file.end), take);
        return;
      }
      take_row(bytes, at + begin, std::string_view(text).substr(begin, end - begin), take);
      begin = end + 1;
    }
  }

 private:
  void take_row(const ReadableFile& bytes, std::uint64_t at, std::string_view row,
                const Take& take) {
    if (is_blank(row)) return;
    document_.ids.clear();
    document_.trained.clear();
    try {
      rows_.read(row, bytes.path(), document_);
    } catch (const FormatError&) {
      rows_.read(row, line_name(bytes, at), document_);  // the same again, now with its line
      throw;
    }
    take(document_, true);
  }

  std::vector<DataFile> files_;
  RowReader rows_;
  std::vector<Part> parts_;
  Document document_;
};

}  // namespace

RowForm first_row_form(std::span<const DataFile> files) {
  std::optional<RowForm> form;
  std::string form_from;
  for (const DataFile& file : files) {
    const ReadableFile bytes(file.path);
    const auto [row, where] = first_row(bytes, file);
    if (row.empty()) continue;
    if (!form) {
      form = detect_row_form(row, where);
      form_from = bytes.path();
    } else if (!has_row_form(row, *form, where)) {
      throw UsageError(
          fmt::format("{}: this row is {} and the rows of {} are {}; train on one "
                      "form at a time",
                      where, describe(detect_row_form(row, where)), form_from, describe(*form)));
    }
  }
  if (form) return *form;
  throw UsageError(fmt::format("{}: there is no row in it", files.front().path.string()));
}

std::unique_ptr<DocumentReader> make_row_reader(std::vector<DataFile> files, RowForm form,
                                                const Tokenizer& tokenizer,
                                                const ChatTemplate* chat,
                                                const RowOptions& options) {
  return std::make_unique<RowFileReader>(std::move(files), form, tokenizer, chat, options);
}

}  // namespace strata
