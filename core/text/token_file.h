#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "core/cache_entry.h"
#include "core/file.h"
#include "core/text/document_reader.h"
#include "core/text/token_source.h"

namespace strata {

// Internal: one entry of the token cache. Not installed.

struct TokenFileOptions {
  std::int64_t packed_length = 0;  ///< as DocumentPacker takes it
  std::int32_t filler = 0;
  nlohmann::json description;     ///< kept beside the tokens: what they were made of
  std::int64_t split_length = 0;  ///< of sequences that split longer documents; 0: do not tell
  /// Told when documents were cut or are split. Any thread.
  std::function<void(const std::string&)> warn;
};

/// Tokens in a directory that one process fills and others read as it grows.
///
/// Whoever holds the lock of the directory tokenises, in a thread of its own; the others follow the
/// size of the file, and take over when the lock is free and the entry not complete, because its
/// writer died. An entry is complete once entry.json is there; it is written last.
class TokenFile final : public TokenSource {
 public:
  /// @param make_reader called when the tokens must be made
  /// @throws IoError if the directory cannot be used
  TokenFile(std::filesystem::path directory,
            std::function<std::unique_ptr<DocumentReader>()> make_reader, TokenFileOptions options);
  ~TokenFile() override;  ///< stops tokenising; what is not complete is made anew next time
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  std::int64_t wait_for(std::int64_t count) override;
  void read(std::int64_t begin, std::span<TrainingToken> tokens) override;

 private:
  bool complete() const;
  std::int64_t available() const;
  void lead_if_nobody_does();
  void tokenise();
  void append(std::span<const TrainingToken> tokens);
  /// What entry.json says of documents that did not fit.
  void warn_of(const nlohmann::json& entry) const;
  std::filesystem::path path(const char* name) const { return directory_ / name; }

  std::filesystem::path directory_;
  EntryLock lock_;
  std::function<std::unique_ptr<DocumentReader>()> make_reader_;
  TokenFileOptions options_;
  int tokens_ = -1;  // to write, and to see how many there are
  std::optional<ReadableFile> reader_;
  std::thread writer_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // before failed_
  std::uint64_t written_ = 0;   // bytes, of the writer
};

}  // namespace strata
