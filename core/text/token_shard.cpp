#include "core/text/token_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/text/document_reader.h"
#include "core/text/lines.h"

namespace strata {
namespace {

// llm.c, dev/data/data_common.py: 256 words of 32 bits, of which three say something (magic
// number, version, tokens), then the tokens; GPT-2's take 16 bits each, Llama 3's 32.
constexpr std::uint64_t kHeaderBytes = 1024;
constexpr std::uint32_t kMagicOf16 = 20240520;
constexpr std::uint32_t kMagicOf32 = 20240801;
constexpr std::uint64_t kPieceBytes = 1 << 20;

struct Shard {
  std::uint64_t token_bytes = 0;
  std::uint64_t end = 0;  ///< of its tokens, in the file
};

std::array<std::uint32_t, 3> header_of(const ReadableFile& file) {
  std::array<std::uint32_t, 3> header{};
  const std::string bytes =
      read_text(file, 0, std::min<std::uint64_t>(sizeof(header), file.size()));
  std::memcpy(header.data(), bytes.data(), bytes.size());
  return header;
}

Shard examine(const ReadableFile& file) {
  const auto [magic, version, tokens] = header_of(file);
  const std::string& path = file.path();
  if (magic != kMagicOf16 && magic != kMagicOf32) {
    throw FormatError(
        fmt::format("{}: is no token shard of llm.c: it begins with {}", path, magic));
  }
  const std::uint32_t known = magic == kMagicOf16 ? 1 : 7;
  if (version != known) {
    throw FormatError(
        fmt::format("{}: a token shard of version {}; version {} is known", path, version, known));
  }
  const std::uint64_t token_bytes = magic == kMagicOf16 ? 2 : 4;
  return {token_bytes, kHeaderBytes + token_bytes * tokens};
}

struct Part {
  std::size_t file;
  std::uint64_t begin;
  std::uint64_t end;
};

class ShardReader final : public DocumentReader {
 public:
  ShardReader(std::vector<DataFile> files, std::int32_t end_of_document, std::int64_t vocabulary)
      : files_(std::move(files)), end_of_document_(end_of_document), vocabulary_(vocabulary) {
    for (std::size_t f = 0; f < files_.size(); ++f) {
      const ReadableFile file(files_[f].path);
      const Shard shard = examine(file);
      if (file.size() < shard.end) {
        throw FormatError(fmt::format("{}: ends after {} bytes of the {} that its header promises",
                                      file.path(), file.size(), shard.end));
      }
      const std::uint64_t end = std::min(files_[f].end, shard.end);
      for (std::uint64_t at = std::max(files_[f].begin, kHeaderBytes); at < end;
           at += kPieceBytes) {
        parts_.push_back({f, at, std::min(end, at + kPieceBytes)});
      }
    }
  }

  std::int64_t pieces() const noexcept override { return static_cast<std::int64_t>(parts_.size()); }

  void read(std::int64_t piece, const Take& take) override {
    const Part& part = parts_[static_cast<std::size_t>(piece)];
    const ReadableFile file(files_[part.file].path);
    const std::uint64_t token_bytes = examine(file).token_bytes;
    const std::string bytes = read_text(file, part.begin, part.end);
    bool starts = piece == 0;
    document_.ids.clear();
    for (std::size_t at = 0; at + token_bytes <= bytes.size(); at += token_bytes) {
      std::uint32_t id = 0;
      std::memcpy(&id, bytes.data() + at, token_bytes);  // little-endian, as written
      if (id >= vocabulary_) {
        throw FormatError(fmt::format(
            "{}: the token {} at byte {} is outside the model's vocabulary of {}; use shards that "
            "the model's own tokenizer made",
            file.path(), id, part.begin + at, vocabulary_));
      }
      if (static_cast<std::int32_t>(id) == end_of_document_) {
        flush(take, starts);
        starts = true;
      }
      document_.ids.push_back(static_cast<std::int32_t>(id));
    }
    flush(take, starts);
  }

 private:
  void flush(const Take& take, bool starts) {
    if (document_.ids.empty()) return;
    document_.trained.assign(document_.ids.size(), 1);
    take(document_, starts);
    document_.ids.clear();
  }

  std::vector<DataFile> files_;
  std::int32_t end_of_document_;
  std::int64_t vocabulary_;
  std::vector<Part> parts_;
  Document document_;
};

}  // namespace

bool is_token_shard(const ReadableFile& file) {
  const std::uint32_t magic = header_of(file)[0];
  return magic == kMagicOf16 || magic == kMagicOf32;
}

std::uint64_t token_boundary(const ReadableFile& file, std::uint64_t offset) {
  const std::uint64_t width = examine(file).token_bytes;
  return std::max(kHeaderBytes, (offset + width - 1) / width * width);
}

std::unique_ptr<DocumentReader> make_shard_reader(std::vector<DataFile> files,
                                                  std::int32_t end_of_document,
                                                  std::int64_t vocabulary) {
  return std::make_unique<ShardReader>(std::move(files), end_of_document, vocabulary);
}

}  // namespace strata
