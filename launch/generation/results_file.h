#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "launch/generation/request_reader.h"

namespace strata {

/// The rows whose results are in a file already.
class FinishedRows {
 public:
  FinishedRows() = default;
  /// @param name of the file, for messages
  explicit FinishedRows(std::string name) : name_(std::move(name)) {}
  /// What bytes() of another rank gave.
  FinishedRows(std::string name, std::span<const std::byte> bytes);

  std::size_t count() const noexcept { return results_.size(); }
  /// Whether the row is one of them.
  /// @throws UsageError if there is a result of its id that was made from another row
  bool has(const NumberedRow& row) const;
  /// A result of the row `name`, with NumberedRow::fingerprint. False: there was one.
  bool add(std::string_view name, std::uint64_t fingerprint);
  /// @param found rows that has() was true for. @throws UsageError if that are not all of them
  void expect_all(std::size_t found) const;
  std::vector<std::byte> bytes() const;

 private:
  std::string name_;
  std::unordered_map<std::uint64_t, std::uint64_t> results_;  // fingerprints, by the name's hash
};

/// Where results go: a file that grows by whole lines, or standard output. One process at a time
/// writes to a file.
class ResultsFile {
 public:
  /// @param path empty: standard output
  /// @param resume goes on with the results of an interrupted run: what is in the file stays but
  /// for a last line without an end, which the first append() cuts off
  /// @throws UsageError for a file that is not empty and is not to be gone on with, that another
  /// process writes to, or that cannot be created; FormatError for a line that is no result
  ResultsFile(const std::filesystem::path& path, bool resume);
  ~ResultsFile();
  ResultsFile(const ResultsFile&) = delete;
  ResultsFile& operator=(const ResultsFile&) = delete;

  const FinishedRows& finished() const noexcept { return finished_; }

  /// Blocks until the kernel has the bytes. @param lines whole ones. @throws IoError
  void append(std::string_view lines);
  /// Makes what was appended durable, where it is a file. @throws IoError
  void sync();

 private:
  void open(const std::filesystem::path& path, bool resume);

  std::string name_ = "standard output";
  int descriptor_ = 1;
  bool regular_ = false;
  std::uint64_t end_ = 0;  // of the whole lines
  bool cut_ = false;       // whether half a line follows them
  FinishedRows finished_;
};

}  // namespace strata
