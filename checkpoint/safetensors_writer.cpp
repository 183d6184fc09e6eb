#include "checkpoint/safetensors_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_header.h"

namespace strata {
namespace {

using nlohmann::ordered_json;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::uint64_t bytes_of(const TensorDeclaration& tensor, Dtype dtype) {
  std::uint64_t bytes = size_bytes(dtype);
  for (const std::int64_t dim : tensor.shape) {
    expects(dim >= 0, "dimensions of a tensor to write are not negative");
    expects(!__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes),
            "the size of a tensor to write overflows");
  }
  return bytes;
}

/// @throws Error unless weights are written in this dtype
const char* dtype_name(Dtype dtype) {
  if (dtype == Dtype::kF32) return "F32";
  if (dtype == Dtype::kF16) return "F16";
  expects(dtype == Dtype::kBf16, "weights are written as fp32, bf16 or fp16");
  return "BF16";
}

[[noreturn]] void refuse_value(std::string_view tensor, float value) {
  throw UsageError(
      fmt::format("tensor {}: the value {} is beyond the range of fp16, which ends at 65504; save "
                  "the model as fp32 or bf16 (torch_dtype in the config.json of its source)",
                  in_quotes(tensor), value));
}

/// "model.safetensors", "model.safetensors.index.json" or "model-00001-of-00002.safetensors".
bool is_weight_file(const std::string& name) {
  return name == kSingle || name == kIndex ||
         (name.starts_with("model-") && name.find("-of-") != std::string::npos &&
          name.ends_with(".safetensors"));
}

std::vector<std::string> weight_files(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (is_weight_file(name)) names.push_back(name);
  }
  return names;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path directory,
                                     std::vector<TensorDeclaration> tensors, Options options)
    : directory_(std::move(directory)), options_(options) {
  dtype_name(options.dtype);
  expects(!tensors.empty(), "there are tensors to write");
  std::error_code cause;
  if (!std::filesystem::is_directory(directory_, cause)) {
    throw UsageError(directory_.string() + ": is not a directory; create it first");
  }
  const std::vector<std::string> present = weight_files(directory_);
  if (!options.overwrite && !present.empty()) {
    throw UsageError(fmt::format("{}: holds {} already; choose an empty directory or overwrite it",
                                 directory_.string(), present.front()));
  }
  place(tensors, options.max_shard_bytes);
}

void SafetensorsWriter::place(const std::vector<TensorDeclaration>& tensors,
                              std::uint64_t max_shard_bytes) {
  std::size_t begin = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t next = bytes_of(tensors[i], options_.dtype);
    if (i > begin && bytes + next > max_shard_bytes) {
      add_shard(std::span(tensors).subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += next;
  }
  add_shard(std::span(tensors).subspan(begin));
  name_shards();
}

void SafetensorsWriter::add_shard(std::span<const TensorDeclaration> tensors) {
  std::vector<const TensorDeclaration*> sorted;
  for (const TensorDeclaration& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(), [](auto a, auto b) { return a->name < b->name; });

  ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::uint64_t end = 0;
  for (const TensorDeclaration* tensor : sorted) {
    const std::uint64_t begin = end;
    end += bytes_of(*tensor, options_.dtype);
    header[tensor->name] = {{"dtype", dtype_name(options_.dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {begin, end}}};
    const auto [placed, added] =
        tensors_.try_emplace(tensor->name, Placed{shards_.size(), begin, end - begin});
    if (!added) throw Error("tensor " + in_quotes(tensor->name) + " is declared twice");
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  expects(text.size() <= kMaxSafetensorsHeader, "the header of a weight file is too long");
  const std::uint64_t length = text.size();
  Shard shard;
  shard.header.resize(8);
  std::memcpy(shard.header.data(), &length, sizeof length);
  shard.header += text;
  shard.bytes = shard.header.size() + end;
  shard.left = end;
  for (const TensorDeclaration* tensor : sorted) {
    tensors_.at(tensor->name).offset += shard.header.size();
  }
  shards_.push_back(std::move(shard));
}

void SafetensorsWriter::name_shards() {
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].file_name = shards_.size() == 1 ? kSingle
                                               : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                             i + 1, shards_.size());
  }
}

/// Piece by piece, each value rounded once.
template <typename Stored, typename Value>
void SafetensorsWriter::append_as(std::string_view name, std::span<const Value> values) {
  if constexpr (std::is_same_v<Stored, Value>) return append(name, std::as_bytes(values));
  std::array<Stored, 32768> piece;
  while (!values.empty()) {
    const std::size_t now = std::min(values.size(), piece.size());
    for (std::size_t i = 0; i < now; ++i) {
      const auto value = static_cast<float>(values[i]);
      if (std::is_same_v<Stored, f16> && exceeds_f16(value)) refuse_value(name, value);
      piece[i] = Stored(value);
    }
    append(name, std::as_bytes(std::span(piece).first(now)));
    values = values.subspan(now);
  }
}

void SafetensorsWriter::write(std::string_view name, std::span<const float> values) {
  visit_compute_dtype(options_.dtype,
                      [&]<typename Stored>(Stored) { append_as<Stored>(name, values); });
}

void SafetensorsWriter::write(std::string_view name, std::span<const bf16> values) {
  visit_compute_dtype(options_.dtype,
                      [&]<typename Stored>(Stored) { append_as<Stored>(name, values); });
}

void SafetensorsWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw Error("tensor " + in_quotes(name) + " was not declared");
  Placed& placed = found->second;
  if (bytes.size() > placed.left) {
    throw Error("tensor " + in_quotes(name) + " gets more elements than its shape has");
  }
  if (bytes.empty()) return;
  Shard& shard = shards_[placed.shard];
  if (!shard.file) {
    shard.file.emplace(directory_ / shard.file_name, shard.bytes);
    shard.file->write(0, std::as_bytes(std::span(shard.header)));
  }
  shard.file->write(placed.offset, bytes);
  placed.offset += bytes.size();
  placed.left -= bytes.size();
  shard.left -= bytes.size();
  if (shard.left == 0) shard.file->sync();
}

void SafetensorsWriter::finish() {
  for (const auto& [name, placed] : tensors_) {
    if (placed.left == 0) continue;
    throw Error(fmt::format("{}: tensor {} still lacks {} bytes", directory_.string(),
                            in_quotes(name), placed.left));
  }
  for (Shard& shard : shards_) {
    if (shard.file) continue;  // a shard of empty tensors has only its header
    shard.file.emplace(directory_ / shard.file_name, shard.bytes);
    shard.file->write(0, std::as_bytes(std::span(shard.header)));
    shard.file->sync();
  }
  for (Shard& shard : shards_) shard.file->publish();
  sync_directory(directory_);
  if (shards_.size() > 1) write_text_file(directory_ / kIndex, index());
  remove_stale();
  sync_directory(directory_);
}

std::string SafetensorsWriter::index() const {
  std::uint64_t total = 0;
  for (const Shard& shard : shards_) total += shard.bytes - shard.header.size();
  ordered_json out;
  out["metadata"]["total_size"] = total;
  for (const auto& [name, placed] : tensors_) {
    out["weight_map"][name] = shards_[placed.shard].file_name;
  }
  return out.dump(2) + "\n";
}

void SafetensorsWriter::remove_stale() const {
  for (const std::string& name : weight_files(directory_)) {
    const bool ours = (name == kIndex && shards_.size() > 1) ||
                      std::any_of(shards_.begin(), shards_.end(),
                                  [&](const Shard& shard) { return shard.file_name == name; });
    if (!ours) std::filesystem::remove(directory_ / name);
  }
}

}  // namespace strata
