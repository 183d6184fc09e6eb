#include "launch/generation/results_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "core/json_file.h"
#include "launch/generation/line_reader.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr std::string_view kFirstKey = "{\"id\":";  // of every line that result_line() makes

/// A result's row: its name and its fingerprint.
struct ResultKey {
  std::string name;
  std::uint64_t fingerprint = 0;
};

std::optional<ResultKey> key_of(const json& line) {
  ResultKey key;
  const bool batch = line.contains("custom_id");
  const json id = line.value(batch ? "custom_id" : "id", json());
  if (id.is_string()) {
    key.name = id.get<std::string>();
  } else if (id.is_number_integer()) {
    key.name = id.dump();
  } else {
    return std::nullopt;
  }
  const json place = batch ? line.value("response", json()) : line;
  if (!place.is_object()) return std::nullopt;
  const json request = place.value("request_id", json());
  constexpr std::string_view kPrefix = "req_";
  if (!request.is_string()) return std::nullopt;
  const std::string text = request.get<std::string>();
  if (!text.starts_with(kPrefix)) return std::nullopt;
  const char* const end = text.data() + text.size();
  const auto [rest, error] =
      std::from_chars(text.data() + kPrefix.size(), end, key.fingerprint, 16);
  if (error != std::errc() || rest != end) return std::nullopt;
  return key;
}

}  // namespace

FinishedRows::FinishedRows(std::string name, std::span<const std::byte> bytes)
    : name_(std::move(name)) {
  std::uint64_t pair[2];
  for (std::size_t at = 0; at + sizeof(pair) <= bytes.size(); at += sizeof(pair)) {
    std::memcpy(pair, bytes.data() + at, sizeof(pair));
    results_.emplace(pair[0], pair[1]);
  }
}

std::vector<std::byte> FinishedRows::bytes() const {
  std::vector<std::byte> bytes(results_.size() * 2 * sizeof(std::uint64_t));
  std::size_t at = 0;
  for (const auto& [name, fingerprint] : results_) {
    const std::uint64_t pair[2] = {name, fingerprint};
    std::memcpy(bytes.data() + at, pair, sizeof(pair));
    at += sizeof(pair);
  }
  return bytes;
}

bool FinishedRows::add(std::string_view name, std::uint64_t fingerprint) {
  return results_.emplace(hash_text(name), fingerprint).second;
}

bool FinishedRows::has(const NumberedRow& row) const {
  const auto found = results_.find(hash_text(row.name()));
  if (found == results_.end()) return false;
  if (found->second == row.fingerprint) return true;
  throw UsageError(fmt::format(
      "--resume: {} has a result \"{:.100}\" that was made from another row than {}; use another "
      "--out, or the rows that it was made from",
      name_, row.name(), row.where));
}

void FinishedRows::expect_all(std::size_t found) const {
  if (found == count()) return;
  throw UsageError(fmt::format(
      "--resume: {} of the {} results in {} are of rows that --prompts does not have; use another "
      "--out, or the rows that they were made from",
      count() - found, count(), name_));
}

ResultsFile::ResultsFile(const std::filesystem::path& path, bool resume) {
  if (path.empty()) return;
  name_ = path.string();
  finished_ = FinishedRows(name_);
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
  if (descriptor_ < 0) {
    throw UsageError(describe_errno(fmt::format("--out: {} cannot be written", name_), errno));
  }
  try {
    open(path, resume);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

void ResultsFile::open(const std::filesystem::path& path, bool resume) {
  struct stat facts {};
  regular_ = ::fstat(descriptor_, &facts) == 0 && S_ISREG(facts.st_mode);
  if (!regular_) {
    if (resume) throw UsageError(fmt::format("--resume: {} is not a regular file", name_));
    return;
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw UsageError(fmt::format("--out: another process writes to {}", name_));
  }
  if (facts.st_size == 0) return;
  if (!resume) {
    throw UsageError(fmt::format(
        "--out: {} is there and not empty; go on with it by --resume, or use another name", name_));
  }
  LineReader lines(path);
  while (const std::optional<std::string> line = lines.next()) {
    if (!lines.ended()) {
      cut_ = true;
      if (line->starts_with(kFirstKey.substr(0, line->size()))) break;
      throw FormatError(fmt::format("{}: not a result; use another --out", lines.where()));
    }
    end_ = lines.offset();
    const auto key = key_of(parse_json_object(*line, lines.where(), kMaxDepth));
    if (!key) throw FormatError(fmt::format("{}: not a result; use another --out", lines.where()));
    if (!finished_.add(key->name, key->fingerprint)) {
      throw FormatError(fmt::format("{}: a second result \"{:.100}\"; remove one of the two",
                                    lines.where(), key->name));
    }
  }
}

ResultsFile::~ResultsFile() {
  if (descriptor_ > 1) ::close(descriptor_);
}

void ResultsFile::append(std::string_view lines) {
  if (cut_ && ::ftruncate(descriptor_, static_cast<off_t>(end_)) != 0) {
    throw IoError("cannot cut off half a line", name_, end_, errno);
  }
  cut_ = false;
  while (!lines.empty()) {
    const ssize_t done = ::write(descriptor_, lines.data(), lines.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw IoError("cannot write", name_, end_, done < 0 ? errno : EIO);
    end_ += static_cast<std::uint64_t>(done);
    lines.remove_prefix(static_cast<std::size_t>(done));
  }
}

void ResultsFile::sync() {
  if (regular_ && ::fsync(descriptor_) != 0) throw IoError("cannot sync", name_, end_, errno);
}

}  // namespace strata
