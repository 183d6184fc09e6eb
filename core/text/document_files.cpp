#include "core/text/document_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/json_file.h"

namespace strata {

std::vector<std::filesystem::path> document_files(std::span<const std::filesystem::path> named) {
  if (named.empty()) throw UsageError("no text files were named; name at least one");
  std::vector<std::filesystem::path> files;
  std::set<std::pair<dev_t, ino_t>> seen;
  for (const std::filesystem::path& path : named) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0) throw IoError("cannot open", path.string(), 0, errno);
    if (S_ISDIR(facts.st_mode)) {
      throw UsageError(path.string() + ": is a directory; name the text files in it");
    }
    if (!S_ISREG(facts.st_mode)) throw UsageError(path.string() + ": is not a regular file");
    if (seen.emplace(facts.st_dev, facts.st_ino).second) files.push_back(path);
  }
  return files;
}

std::vector<std::int32_t> read_documents(std::span<const std::filesystem::path> files,
                                         const Tokenizer& tokenizer, std::uint64_t max_bytes) {
  std::uint64_t total = 0;
  for (const std::filesystem::path& path : files) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0) throw IoError("cannot open", path.string(), 0, errno);
    total += static_cast<std::uint64_t>(facts.st_size);
  }
  if (total > max_bytes) {
    throw UsageError(
        fmt::format("{} and the other files have {} bytes of text; at most {} are read",
                    files.front().string(), total, max_bytes));
  }
  std::vector<std::int32_t> tokens;
  for (const std::filesystem::path& path : files) {
    const std::vector<std::int32_t> ids = tokenizer.encode(read_text_file(path, max_bytes));
    if (ids.empty()) continue;
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    tokens.push_back(tokenizer.end_of_document());
  }
  if (tokens.empty()) {
    throw UsageError(fmt::format("{} {} no text", files.empty() ? "" : files.front().string(),
                                 files.size() > 1 ? "and the other files have" : "has"));
  }
  return tokens;
}

}  // namespace strata
