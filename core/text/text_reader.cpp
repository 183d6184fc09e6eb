#include <algorithm>
#include <utility>

#include "core/text/document_reader.h"
#include "core/text/lines.h"

namespace strata {
namespace {

constexpr std::uint64_t kPieceBytes = 4 << 20;

/// A part of a file, before its ends were moved to where lines begin.
struct Part {
  std::size_t file;
  std::uint64_t begin;
};

class TextReader final : public DocumentReader {
 public:
  TextReader(std::vector<DataFile> files, const Tokenizer& tokenizer)
      : files_(std::move(files)), tokenizer_(tokenizer) {
    for (std::size_t f = 0; f < files_.size(); ++f) {
      for (std::uint64_t at = files_[f].begin; at < files_[f].end; at += kPieceBytes) {
        parts_.push_back({f, at});
      }
    }
  }

  std::int64_t pieces() const noexcept override { return static_cast<std::int64_t>(parts_.size()); }

  void read(std::int64_t piece, const Take& take) override {
    const Part& part = parts_[static_cast<std::size_t>(piece)];
    const DataFile& file = files_[part.file];
    const ReadableFile bytes(file.path);
    const std::uint64_t begin = start(bytes, file, part.begin);
    const std::uint64_t end = start(bytes, file, std::min(part.begin + kPieceBytes, file.end));
    document_.ids.clear();
    const bool starts = begin == file.begin;
    tokenizer_.encode(read_text(bytes, begin, end),
                      {.start = starts ? TextStart::kBeginning : TextStart::kWithin},
                      document_.ids);
    if (end == file.end && begin < end) document_.ids.push_back(tokenizer_.end_of_document());
    document_.trained.assign(document_.ids.size(), 1);
    take(document_, starts);
  }

 private:
  /// Where a part really begins: with a line, but at the ends of the file. The same for the part
  /// before, which ends there.
  static std::uint64_t start(const ReadableFile& bytes, const DataFile& file,
                             std::uint64_t nominal) {
    if (nominal == file.begin || nominal == file.end) return nominal;
    return next_line(bytes, nominal, file.end).value_or(file.end);
  }

  std::vector<DataFile> files_;
  const Tokenizer& tokenizer_;
  std::vector<Part> parts_;
  Document document_;
};

}  // namespace

std::unique_ptr<DocumentReader> make_text_reader(std::vector<DataFile> files,
                                                 const Tokenizer& tokenizer) {
  return std::make_unique<TextReader>(std::move(files), tokenizer);
}

}  // namespace strata
