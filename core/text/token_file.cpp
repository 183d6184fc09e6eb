#include "core/text/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json_file.h"
#include "core/text/document_packer.h"

namespace strata {
namespace {

constexpr const char* kTokens = "tokens.bin";
constexpr const char* kCut = "documents_cut";
constexpr const char* kUnlearned = "documents_unlearned";
constexpr const char* kLongest = "longest_document";
constexpr std::size_t kBufferTokens = 256 << 10;
constexpr std::chrono::milliseconds kPatience(5);

int open_to_write(const std::filesystem::path& file) {
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0) throw IoError("cannot open", file.string(), 0, errno);
  return descriptor;
}

}  // namespace

TokenFile::TokenFile(std::filesystem::path directory,
                     std::function<std::unique_ptr<DocumentReader>()> make_reader,
                     TokenFileOptions options)
    : directory_(std::move(directory)),
      lock_(directory_),
      make_reader_(std::move(make_reader)),
      options_(std::move(options)) {
  tokens_ = open_to_write(path(kTokens));
  reader_.emplace(path(kTokens));
  lead_if_nobody_does();
  if (!writer_.joinable() && complete()) {  // the writer tells what it made itself
    const auto entry = parse_json_object(read_text_file(path(kEntryFacts), kMostEntryBytes),
                                         path(kEntryFacts).string(), kEntryDepth);
    warn_of(entry);
  }
}

TokenFile::~TokenFile() {
  stop_ = true;
  if (writer_.joinable()) writer_.join();
  if (tokens_ >= 0) close(tokens_);
}

bool TokenFile::complete() const { return std::filesystem::exists(path(kEntryFacts)); }

std::int64_t TokenFile::available() const {
  struct stat facts {};
  if (fstat(tokens_, &facts) != 0) {
    throw IoError("cannot be examined", path(kTokens).string(), 0, errno);
  }
  return facts.st_size / static_cast<std::int64_t>(sizeof(TrainingToken));
}

void TokenFile::lead_if_nobody_does() {
  if (writer_.joinable() || complete()) return;
  if (!lock_.try_own()) return;
  if (complete()) {
    lock_.release();
    return;
  }
  if (ftruncate(tokens_, 0) != 0) {
    throw IoError("cannot be emptied", path(kTokens).string(), 0, errno);
  }
  writer_ = std::thread([this] { tokenise(); });
}

std::int64_t TokenFile::wait_for(std::int64_t count) {
  for (;;) {
    const bool all = complete();  // before the size, which grows until then
    const std::int64_t there = available();
    if (all || there >= count) return there;
    if (failed_) std::rethrow_exception(failure_);
    lead_if_nobody_does();
    std::this_thread::sleep_for(kPatience);
  }
}

void TokenFile::read(std::int64_t begin, std::span<TrainingToken> tokens) {
  reader_->read(static_cast<std::uint64_t>(begin) * sizeof(TrainingToken),
                std::as_writable_bytes(tokens));
}

void TokenFile::append(std::span<const TrainingToken> tokens) {
  std::span<const std::byte> rest = std::as_bytes(tokens);
  while (!rest.empty()) {
    const ssize_t count = pwrite(tokens_, rest.data(), rest.size(), static_cast<off_t>(written_));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      throw IoError(
          "cannot keep the tokens; free some room (strata clean), or choose another "
          "--cache",
          path(kTokens).string(), written_, errno);
    }
    written_ += static_cast<std::uint64_t>(count);
    rest = rest.subspan(static_cast<std::size_t>(count));
  }
}

void TokenFile::warn_of(const nlohmann::json& entry) const {
  if (!options_.warn) return;
  const auto longest = entry.value(kLongest, std::int64_t{0});
  if (options_.split_length > 0 && longest > options_.split_length) {
    options_.warn(fmt::format(
        "documents of up to {} tokens are longer than a sequence of {} and are split over several",
        longest, options_.split_length));
  }
  const auto cut = entry.value(kCut, std::int64_t{0});
  if (cut == 0) return;
  std::string line =
      fmt::format("{} documents are longer than a sequence of {} tokens and are cut at its end",
                  cut, options_.packed_length);
  if (const auto unlearned = entry.value(kUnlearned, std::int64_t{0}); unlearned > 0) {
    line += fmt::format(
        "; nothing of {} of them is learned, whose prompts fill it: use a longer "
        "--sequence_length",
        unlearned);
  }
  options_.warn(line);
}

void TokenFile::tokenise() {
  try {
    const std::unique_ptr<DocumentReader> reader = make_reader_();
    std::vector<TrainingToken> buffer;
    DocumentPacker packer(options_.packed_length, options_.filler,
                          [&](std::span<const TrainingToken> tokens) {
                            buffer.insert(buffer.end(), tokens.begin(), tokens.end());
                            if (buffer.size() < kBufferTokens) return;
                            append(buffer);
                            buffer.clear();
                          });
    const auto flush = [&] {
      append(buffer);
      buffer.clear();
    };
    for (std::int64_t piece = 0; piece < reader->pieces(); ++piece) {
      reader->read(piece, [&](const Document& document, bool starts) {
        if (!stop_) packer.add(document, starts);
      });
      if (stop_) return;
      flush();
    }
    packer.finish();
    flush();
    if (fdatasync(tokens_) != 0) {
      throw IoError("cannot be made durable", path(kTokens).string(), 0, errno);
    }
    nlohmann::json entry = options_.description;
    entry["tokens"] = written_ / sizeof(TrainingToken);
    entry[kCut] = packer.cut();
    entry[kUnlearned] = packer.cut_unlearned();
    entry[kLongest] = packer.longest();
    warn_of(entry);
    write_json_file(path(kEntryFacts), entry);
    lock_.release();
  } catch (...) {
    failure_ = std::current_exception();
    failed_ = true;
  }
}

}  // namespace strata
