#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

#include "core/error.h"
#include "core/text/document_reader.h"
#include "core/text/training_token.h"
#include "tests/fuzz/targets.h"

namespace strata::test {
namespace {

/// Bytes as a file without a name.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (write(descriptor_, content.data(), content.size()) !=
        static_cast<ssize_t>(content.size())) {
      throw std::runtime_error("no memory for a file");
    }
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

void fuzz_shard(std::string_view input) try {
  const MemoryFile file(input);
  const auto reader =
      make_shard_reader({{file.path(), 0, input.size()}}, 50256, TrainingToken::kMostIds);
  std::size_t tokens = 0;
  for (std::int64_t piece = 0; piece < reader->pieces(); ++piece) {
    reader->read(piece, [&](const Document& document, bool) {
      tokens += document.ids.size();
      for (const std::int32_t id : document.ids) {
        if (id < 0) throw std::logic_error("a negative id");
      }
    });
  }
  if (tokens * 2 > input.size()) throw std::logic_error("more tokens than bytes");
} catch (const FormatError&) {
}

}  // namespace strata::test
