#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <type_traits>

#include "core/json_file.h"

namespace strata {
namespace {

constexpr std::size_t kMaxIndexBytes = 32 << 20;
constexpr std::size_t kPieceBytes = 256 << 10;

template <typename Stored, typename Out>
void widen(const std::byte* in, std::size_t count, Out* out) {
  for (std::size_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, in + i * sizeof value, sizeof value);
    out[i] = static_cast<Out>(value);
  }
}

/// @returns whether `dtype` is one that `Out` is read from
template <typename Out>
bool convert(Dtype dtype, const std::byte* in, std::size_t count, Out* out) {
  if constexpr (std::is_same_v<Out, float>) {
    switch (dtype) {
      case Dtype::kF32:
        widen<float>(in, count, out);
        return true;
      case Dtype::kF64:
        widen<double>(in, count, out);
        return true;
      case Dtype::kBf16:
        widen<bf16>(in, count, out);
        return true;
      case Dtype::kF16:
        widen<f16>(in, count, out);
        return true;
      default:
        return false;
    }
  } else {
    switch (dtype) {
      case Dtype::kI64:
        widen<std::int64_t>(in, count, out);
        return true;
      case Dtype::kI32:
        widen<std::int32_t>(in, count, out);
        return true;
      case Dtype::kU8:
      case Dtype::kBool:
        widen<std::uint8_t>(in, count, out);
        return true;
      default:
        return false;
    }
  }
}

std::filesystem::path weights_in(const std::filesystem::path& directory) {
  const auto holds = [&](const char* name) {
    std::error_code ignored;
    return std::filesystem::exists(directory / name, ignored);
  };
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (holds(name)) return directory / name;
  }
  const bool pickle = holds("pytorch_model.bin") || holds("pytorch_model.bin.index.json");
  const std::string cause = fmt::format(
      "{}: has neither model.safetensors nor model.safetensors.index.json", directory.string());
  if (!pickle) throw FormatError(cause + "; name the directory of a whole model");
  throw FormatError(
      fmt::format("{}; pytorch_model.bin is never opened here, because unpickling may run code; "
                  "convert it with: launch/convert-bin.py \"{}\"",
                  cause, directory.string()));
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : path_(path.string()) {
  std::error_code ignored;
  const bool directory = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path file = directory ? weights_in(path) : path;
  if (file.extension() == ".json") {
    open_index(file);
  } else {
    add_file(file);
  }
}

void SafetensorsReader::add_file(const std::filesystem::path& path) {
  ReadableFile file(path);
  std::string text(8, '\0');
  if (file.size() >= 8) file.read(0, std::as_writable_bytes(std::span(text)));
  text.resize(safetensors_header_bytes(text, file.size(), file.path()));
  file.read(8, std::as_writable_bytes(std::span(text)));
  std::vector<SafetensorsTensor> tensors = parse_safetensors_header(text, file.size(), file.path());
  for (SafetensorsTensor& tensor : tensors) tensor.file = static_cast<int>(files_.size());
  files_.push_back(std::move(file));
  if (tensors_.empty()) {  // without a second copy of a table that may be long
    tensors_ = std::move(tensors);
    return;
  }
  const auto middle = static_cast<std::ptrdiff_t>(tensors_.size());
  std::move(tensors.begin(), tensors.end(), std::back_inserter(tensors_));
  std::inplace_merge(tensors_.begin(), tensors_.begin() + middle, tensors_.end(),
                     [](const auto& a, const auto& b) { return a.name < b.name; });
}

void SafetensorsReader::open_index(const std::filesystem::path& index) {
  const auto entries =
      parse_safetensors_index(read_text_file(index, kMaxIndexBytes), index.string());
  std::map<std::string, int> numbers;
  for (const auto& [tensor, file] : entries) numbers.emplace(file, 0);
  for (auto& [file, number] : numbers) {
    number = static_cast<int>(files_.size());
    add_file(index.parent_path() / file);
  }
  for (std::size_t i = 1; i < tensors_.size(); ++i) {
    if (tensors_[i].name != tensors_[i - 1].name) continue;
    throw FormatError(fmt::format("{}: tensor {}: lies also in {}", path_of(tensors_[i]),
                                  in_quotes(tensors_[i].name), path_of(tensors_[i - 1])));
  }
  for (const auto& [name, file] : entries) {
    const SafetensorsTensor* tensor = find(name);
    if (tensor == nullptr || tensor->file != numbers[file]) {
      throw FormatError(fmt::format("{}: tensor {}: is not in {}, where the index puts it",
                                    index.string(), in_quotes(name), file));
    }
  }
  if (entries.size() == tensors_.size()) return;
  for (const SafetensorsTensor& tensor : tensors_) {
    const bool listed = std::binary_search(
        entries.begin(), entries.end(), std::pair<std::string, std::string>(tensor.name, ""),
        [](const auto& a, const auto& b) { return a.first < b.first; });
    if (!listed) {
      throw FormatError(fmt::format("{}: tensor {}: is not in {}", path_of(tensor),
                                    in_quotes(tensor.name), index.string()));
    }
  }
}

const SafetensorsTensor* SafetensorsReader::find(std::string_view name) const noexcept {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const auto& a, std::string_view b) { return a.name < b; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const SafetensorsTensor& SafetensorsReader::at(std::string_view name) const {
  const SafetensorsTensor* tensor = find(name);
  if (tensor == nullptr)
    throw FormatError(fmt::format("{}: tensor {}: is missing", path_, in_quotes(name)));
  return *tensor;
}

const std::string& SafetensorsReader::path_of(const SafetensorsTensor& tensor) const {
  return files_[static_cast<std::size_t>(tensor.file)].path();
}

template <typename Out>
void SafetensorsReader::read_converted(const SafetensorsTensor& tensor, std::int64_t begin,
                                       std::int64_t count, Out* out) const {
  expects(begin >= 0 && count >= 0 && begin <= tensor.numel() - count,
          "the range must lie in the tensor");
  if (!tensor.type->supported || !convert<Out>(tensor.type->dtype, nullptr, 0, out)) {
    throw FormatError(
        fmt::format("{}: tensor {}: dtype {} cannot be read here; supported are {}",
                    path_of(tensor), in_quotes(tensor.name), tensor.type->name,
                    std::is_same_v<Out, float> ? "F32, BF16, F16, F64" : "I64, I32, U8, BOOL"));
  }
  const ReadableFile& file = files_[static_cast<std::size_t>(tensor.file)];
  const std::size_t width = size_bytes(tensor.type->dtype);
  std::uint64_t offset = tensor.begin + static_cast<std::uint64_t>(begin) * width;
  auto left = static_cast<std::size_t>(count);
  if (tensor.type->dtype == dtype_of<Out>) {
    file.read(offset, std::as_writable_bytes(std::span(out, left)));
    return;
  }
  std::vector<std::byte> piece(std::min(left * width, kPieceBytes));
  while (left > 0) {
    const std::size_t now = std::min(left, piece.size() / width);
    file.read(offset, std::span(piece).first(now * width));
    convert<Out>(tensor.type->dtype, piece.data(), now, out);
    offset += now * width;
    out += now;
    left -= now;
  }
}

void SafetensorsReader::read(const SafetensorsTensor& tensor, std::int64_t begin,
                             std::int64_t count, float* out) const {
  read_converted(tensor, begin, count, out);
}

void SafetensorsReader::read(const SafetensorsTensor& tensor, std::int64_t begin,
                             std::int64_t count, std::int64_t* out) const {
  read_converted(tensor, begin, count, out);
}

}  // namespace strata
