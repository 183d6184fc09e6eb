#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/text/document_reader.h"
#include "core/text/lines.h"
#include "core/text/token_shard.h"

namespace strata {
namespace {

const char* name_of(DataForm form) {
  switch (form) {
    case DataForm::kText:
      return "text";
    case DataForm::kRows:
      return "rows of JSON";
    case DataForm::kTokens:
      break;
  }
  return "tokens";
}

/// Archives, tables and tokens of other programs are not learned as if they were prose.
void expect_text(const ReadableFile& bytes, const DataFile& file, bool looks_like_tokens) {
  constexpr std::uint64_t kExamined = 64 << 10;
  const std::string begin = read_text(bytes, file.begin, std::min(file.end, kExamined));
  if (begin.find('\0') == std::string::npos) return;
  throw FormatError(fmt::format(
      "{}: holds zero bytes, as no text does{}; read are texts in UTF-8, rows of JSON (.jsonl) and "
      "token shards of llm.c (.bin): unpack or convert it",
      bytes.path(), looks_like_tokens ? ", and begins with no magic number of llm.c" : ""));
}

DataForm form_of(const DataFile& file) {
  const std::string extension = file.path.extension().string();
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") {
    return DataForm::kRows;
  }
  const ReadableFile bytes(file.path);
  if (extension == ".bin" && is_token_shard(bytes)) return DataForm::kTokens;
  expect_text(bytes, file, extension == ".bin");
  return DataForm::kText;
}

/// Where a file may be divided: the first place from `offset` on.
std::uint64_t place_to_divide(const DataFile& file, std::uint64_t offset, DataForm form) {
  const ReadableFile bytes(file.path);
  if (form == DataForm::kTokens) return token_boundary(bytes, offset);
  if (const auto line = next_line(bytes, offset, file.end)) return *line;
  if (form == DataForm::kRows) return file.end;
  // A text without lines: between two characters.
  const std::string around = read_text(bytes, offset, std::min(offset + 4, file.end));
  const auto begins = [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; };
  return offset + static_cast<std::uint64_t>(std::ranges::find_if(around, begins) - around.begin());
}

}  // namespace

std::vector<DataFile> data_files(std::span<const std::filesystem::path> named) {
  if (named.empty()) throw UsageError("no files to learn from were named; name at least one");
  std::vector<DataFile> files;
  std::set<std::pair<dev_t, ino_t>> seen;
  for (const std::filesystem::path& path : named) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0) throw IoError("cannot open", path.string(), 0, errno);
    if (S_ISDIR(facts.st_mode)) {
      throw UsageError(path.string() + ": is a directory; name the files in it");
    }
    if (!S_ISREG(facts.st_mode)) throw UsageError(path.string() + ": is not a regular file");
    if (seen.emplace(facts.st_dev, facts.st_ino).second) {
      files.push_back({path, 0, static_cast<std::uint64_t>(facts.st_size)});
    }
  }
  return files;
}

DataForm data_form(std::span<const DataFile> files) {
  const DataForm first = form_of(files.front());
  for (const DataFile& file : files) {
    if (const DataForm other = form_of(file); other != first) {
      throw UsageError(fmt::format("{} holds {} and {} holds {}; train on one kind at a time",
                                   files.front().path.string(), name_of(first), file.path.string(),
                                   name_of(other)));
    }
  }
  return first;
}

std::vector<DataFile> hold_out(std::vector<DataFile>& files, DataForm form, double fraction) {
  if (!(fraction >= 0.0 && fraction < 1.0)) {
    throw UsageError(fmt::format("the held-out part is {}; from 0 to below 1", fraction));
  }
  std::uint64_t total = 0;
  for (const DataFile& file : files) total += file.end - file.begin;
  auto rest = static_cast<std::uint64_t>(std::floor(static_cast<double>(total) * fraction));
  std::vector<DataFile> held;
  while (rest > 0) {
    DataFile& last = files.back();
    const std::uint64_t size = last.end - last.begin;
    if (size > rest) {
      const std::uint64_t cut = place_to_divide(last, last.end - rest, form);
      if (cut < last.end) held.push_back({last.path, cut, last.end});
      last.end = cut;
      break;
    }
    held.push_back(last);
    files.pop_back();
    rest -= size;
  }
  std::ranges::reverse(held);
  return held;
}

}  // namespace strata
