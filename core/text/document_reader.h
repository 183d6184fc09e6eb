#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "core/text/training_rows.h"

namespace strata {

/// Bytes of a file to learn from.
struct DataFile {
  std::filesystem::path path;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

enum class DataForm : std::uint8_t {
  kText,    ///< each file is a document
  kRows,    ///< JSONL, each line is a document (core/text/training_rows.h)
  kTokens,  ///< token shards of llm.c: ids of 16 or 32 bits behind a header of 1024 bytes
};

/// The named files with all their bytes. A file named twice (the same inode) is read once; a
/// symbolic link is followed, since it was named.
/// @throws UsageError for a directory or anything else that is not a regular file, or when nothing
/// is named; IoError for a file that cannot be examined
std::vector<DataFile> data_files(std::span<const std::filesystem::path> named);

/// The form of all of them: .jsonl, .ndjson and .json hold rows, a .bin with the magic number of
/// llm.c holds tokens, all else is text. @throws UsageError when they differ; FormatError, also for
/// a text that begins like no text; IoError
DataForm data_form(std::span<const DataFile> files);

/// Takes the last `fraction` of the bytes off `files`, from the next line on (the next character
/// of a text without lines, the next token of shards), and returns it.
std::vector<DataFile> hold_out(std::vector<DataFile>& files, DataForm form, double fraction);

/// Documents out of files, piece by piece, in an order that depends on the files only. A piece is
/// about a MiB, so that memory stays flat. One thread at a time.
class DocumentReader {
 public:
  /// Gets a document, or with `starts` false the next part of the one before.
  using Take = std::function<void(const Document& document, bool starts)>;
  virtual ~DocumentReader() = default;
  virtual std::int64_t pieces() const noexcept = 0;
  /// @throws FormatError naming file and line, IoError
  virtual void read(std::int64_t piece, const Take& take) = 0;
};

/// Each file is a document and ends with tokenizer.end_of_document(). Files over 4 MiB are
/// tokenised in parts that begin with a line. The tokenizer must outlive the reader.
std::unique_ptr<DocumentReader> make_text_reader(std::vector<DataFile> files,
                                                 const Tokenizer& tokenizer);

/// The form of the first row that is not blank. @throws UsageError when there is none, or when the
/// first row of another file has not what rows of that form need; FormatError
RowForm first_row_form(std::span<const DataFile> files);

/// Each line is a document. Pieces are taken in a shuffled order, so that what is near in a sorted
/// file is not near in training. `tokenizer` and `chat` must outlive the reader.
std::unique_ptr<DocumentReader> make_row_reader(std::vector<DataFile> files, RowForm form,
                                                const Tokenizer& tokenizer,
                                                const ChatTemplate* chat,
                                                const RowOptions& options);

/// Token shards of llm.c; a document starts with the token that `end_of_document` names. Ids from
/// `vocabulary` on are refused.
std::unique_ptr<DocumentReader> make_shard_reader(std::vector<DataFile> files,
                                                  std::int32_t end_of_document,
                                                  std::int64_t vocabulary);

}  // namespace strata
