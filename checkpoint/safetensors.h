#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "checkpoint/safetensors_header.h"

namespace strata {

/// The tensors of one .safetensors file, of an index.json with its shards, or of a model directory
/// (model.safetensors, else model.safetensors.index.json: the order of transformers).
///
/// Opening reads and checks headers only; the memory needed is that of the table. Reading tensors
/// is const and may happen on several threads at once. The files may be hostile.
class SafetensorsReader {
 public:
  /// @throws FormatError that starts with the path of the file at fault, IoError
  explicit SafetensorsReader(const std::filesystem::path& path);

  /// Sorted by name.
  const std::vector<SafetensorsTensor>& tensors() const noexcept { return tensors_; }
  const SafetensorsTensor* find(std::string_view name) const noexcept;  ///< null: not there
  /// @throws FormatError if it is not there
  const SafetensorsTensor& at(std::string_view name) const;

  /// Elements [begin, begin + count) of the flattened tensor, from F32, BF16, F16 or F64.
  /// Blocks; needs at most 256 KiB beside `out`.
  /// @throws FormatError for other dtypes, IoError
  void read(const SafetensorsTensor& tensor, std::int64_t begin, std::int64_t count,
            float* out) const;
  /// The same for I64, I32, U8 and BOOL.
  void read(const SafetensorsTensor& tensor, std::int64_t begin, std::int64_t count,
            std::int64_t* out) const;

  /// Path of what was opened, and of the file that holds `tensor`: for messages.
  const std::string& path() const noexcept { return path_; }
  const std::string& path_of(const SafetensorsTensor& tensor) const;

 private:
  void open_index(const std::filesystem::path& index);
  void add_file(const std::filesystem::path& file);
  template <typename Out>
  void read_converted(const SafetensorsTensor& tensor, std::int64_t begin, std::int64_t count,
                      Out* out) const;

  std::string path_;
  std::vector<ReadableFile> files_;
  std::vector<SafetensorsTensor> tensors_;
};

}  // namespace strata
