#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.h"

namespace strata {

/// An element type of the format. `supported` ones can be read; the others can only be listed.
struct SafetensorsDtype {
  const char* name;  ///< as in the file: "BF16"
  int bits;
  bool supported;
  Dtype dtype;  ///< meaningful if supported
};

/// Where one tensor lies in a safetensors file. Row-major, little-endian.
struct SafetensorsTensor {
  std::string name;
  const SafetensorsDtype* type = nullptr;
  std::vector<std::int64_t> shape;  ///< at most 8 dimensions; a product that fits in 64 bits
  std::uint64_t begin = 0;          ///< first byte, from the start of the file
  std::uint64_t bytes = 0;
  int file = 0;  ///< which file of a model in several

  std::int64_t numel() const noexcept;
};

/// The longest header the format allows.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

/// Length of the header from the first eight bytes of a file of `file_bytes` bytes.
/// @throws FormatError that starts with `path`, as everything here
std::uint64_t safetensors_header_bytes(std::string_view first_eight, std::uint64_t file_bytes,
                                       const std::string& path);

/// Checks and lists a header (without its length). The text may be hostile: everything is proven
/// before it is used, and memory stays proportional to `header`. Sorted by name. The tensors cover
/// the rest of the file exactly, without holes or overlap.
/// @throws FormatError that names the tensor
std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view header,
                                                        std::uint64_t file_bytes,
                                                        const std::string& path);

/// {tensor, file} of a model.safetensors.index.json, sorted by tensor. Files are plain names that
/// end in
/// ".safetensors": no path leads out of the directory.
/// @throws FormatError
std::vector<std::pair<std::string, std::string>> parse_safetensors_index(std::string_view json,
                                                                         const std::string& path);

/// `name` in quotes for a message: cut after 100 bytes, control characters replaced.
std::string in_quotes(std::string_view name);

}  // namespace strata
