#include "checkpoint/quantized_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <mutex>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_header.h"
#include "core/group_quantization.h"
#include "core/json_file.h"
#include "core/process.h"
#include "core/units.h"
#include "parallel/rounding.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::uint64_t kAlignment = 4096;
/// Elements that are quantised at once, but for longer rows.
constexpr std::int64_t kPiece = 1 << 20;
/// Nesting of a safetensors header, with room.
constexpr int kHeaderDepth = 8;
constexpr Dtype kStored[] = {Dtype::kQ8, Dtype::kQ4, Dtype::kF32, Dtype::kBf16, Dtype::kF16};

/// A tensor of a safetensors header.
json entry(const char* dtype, json shape, std::uint64_t begin, std::uint64_t end) {
  return {{"dtype", dtype}, {"shape", std::move(shape)}, {"data_offsets", {begin, end}}};
}

json entry(Parameter parameter, Dtype kept, std::uint64_t begin, std::uint64_t bytes) {
  const Shape& shape = parameter->shape;
  json dims = json::array();
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  if (is_quantized(kept)) dims.back() = storage_bytes(kept, shape[shape.rank() - 1]);
  const char* dtype = is_quantized(kept)    ? "U8"
                      : kept == Dtype::kF32 ? "F32"
                      : kept == Dtype::kF16 ? "F16"
                                            : "BF16";
  return entry(dtype, std::move(dims), begin, begin + bytes);
}

/// The dtype of which name() is what the metadata says, quantised or not.
Dtype dtype_named(const json& metadata, const char* key, bool quantized, const std::string& path) {
  const std::string value = metadata.value(key, "");
  for (const Dtype dtype : kStored) {
    if (is_quantized(dtype) == quantized && name(dtype) == value) return dtype;
  }
  throw FormatError(fmt::format("{}: __metadata__ has {} \"{}\"; known are {}", path, key, value,
                                quantized ? "q8 and q4" : "fp32, bf16 and fp16"));
}

}  // namespace

/// Quantises a model into a file, on several threads.
class Quantizer {
 public:
  Quantizer(const ParameterSource& source, const std::string& model,
            const std::vector<QuantizedFile::Tensor>& tensors, std::uint64_t header,
            DurableFile& file)
      : source_(source), model_(model), tensors_(tensors), header_(header), file_(file) {
    for (const QuantizedFile::Tensor& tensor : tensors) all_ += tensor.bytes;
  }

  void run(const QuantizingProgress& progress) {
    if (progress) progress(0, all_);
    const std::size_t cores = std::max<std::size_t>(1, allowed_cores().size());
    std::vector<std::future<void>> others;
    while (others.size() + 1 < cores) {
      others.push_back(std::async(std::launch::async, [this] { work({}); }));
    }
    try {
      work(progress);
    } catch (...) {  // the others end at their next piece
      for (const std::future<void>& other : others) other.wait();
      throw;
    }
    for (std::future<void>& other : others) other.get();
    if (progress) progress(all_, all_);
  }

 private:
  struct Piece {
    const QuantizedFile::Tensor* tensor = nullptr;
    std::int64_t begin = 0;
    std::int64_t numel = 0;
  };

  /// Whole rows, so that every one of them is read once.
  std::optional<Piece> next() {
    const std::lock_guard lock(mutex_);
    if (stopped_ || tensor_ == tensors_.size()) return std::nullopt;
    const QuantizedFile::Tensor& tensor = tensors_[tensor_];
    const Shape& shape = tensor.parameter->shape;
    const std::int64_t row = shape.numel() / shape[0];
    const std::int64_t most = row * std::max<std::int64_t>(1, kPiece / row);
    const Piece piece{&tensor, begin_, std::min(most, shape.numel() - begin_)};
    begin_ += piece.numel;
    if (begin_ == shape.numel()) {
      ++tensor_;
      begin_ = 0;
    }
    return piece;
  }

  void work(const QuantizingProgress& progress) {
    try {
      std::vector<float> values;
      std::vector<std::byte> bytes;
      while (const std::optional<Piece> piece = next()) {
        values.resize(static_cast<std::size_t>(piece->numel));
        source_(piece->tensor->parameter, piece->begin, values);
        bytes.resize(storage_bytes(piece->tensor->dtype, piece->numel));
        convert(*piece, values, bytes);
        file_.write(
            header_ + piece->tensor->begin + storage_bytes(piece->tensor->dtype, piece->begin),
            bytes);
        const std::uint64_t done = done_ += bytes.size();
        if (progress) progress(done, all_);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      throw;
    }
  }

  void convert(const Piece& piece, std::span<float> values, std::span<std::byte> bytes) const {
    const Dtype dtype = piece.tensor->dtype;
    if (!is_quantized(dtype)) {
      round_to({values.data(), Dtype::kF32, {piece.numel}}, {bytes.data(), dtype, {piece.numel}});
      return;
    }
    try {
      quantize(values, dtype, bytes.data());
    } catch (const Error& error) {
      throw FormatError(fmt::format("{}: {}, from its element {} on: {}", model_,
                                    piece.tensor->parameter->name, piece.begin, error.what()));
    }
  }

  const ParameterSource& source_;
  const std::string& model_;
  const std::vector<QuantizedFile::Tensor>& tensors_;
  const std::uint64_t header_;
  DurableFile& file_;
  std::uint64_t all_ = 0;
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;  // of what follows
  std::size_t tensor_ = 0;
  std::int64_t begin_ = 0;
  bool stopped_ = false;
};

QuantizedFile::QuantizedFile(const Model& model, const Facts& facts) {
  expects(is_quantized(facts.storage.weights), "weights that are kept quantised are q8 or q4");
  for (int index = 0; index < model.block_count(); ++index) {
    for (const auto& parameter : model.block(index).parameters()) {
      Tensor tensor{.parameter = parameter.get(), .dtype = facts.storage.of(*parameter)};
      tensor.begin = round_up(data_bytes_, kAlignment);
      tensor.bytes = storage_bytes(tensor.dtype, parameter->shape.numel());
      data_bytes_ = tensor.begin + tensor.bytes;
      by_name_.emplace(parameter->name, tensors_.size());
      tensors_.push_back(tensor);
    }
  }
  header_ = header_of(facts);
}

std::string QuantizedFile::header_of(const Facts& facts) const {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"strata_weights", name(facts.storage.weights)},
                            {"strata_compute", name(facts.storage.compute)},
                            {"strata_version", std::to_string(kVersion)},
                            {"source", facts.source}};
  std::uint64_t end = 0;
  for (const Tensor& tensor : tensors_) {
    if (tensor.begin > end) {
      header[fmt::format("padding.{}", header.size())] =
          entry("U8", {tensor.begin - end}, end, tensor.begin);
    }
    header[tensor.parameter->name] =
        entry(tensor.parameter, tensor.dtype, tensor.begin, tensor.bytes);
    end = tensor.begin + tensor.bytes;
  }
  std::string text = header.dump();
  std::uint64_t length = text.size();
  length = round_up(sizeof length + length, kAlignment) - sizeof length;
  text.resize(length, ' ');
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text;
}

QuantizedFile::Facts QuantizedFile::facts_of(const ReadableFile& file) {
  std::string first(std::min<std::uint64_t>(8, file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(first)));
  std::string text(safetensors_header_bytes(first, file.size(), file.path()), '\0');
  file.read(first.size(), std::as_writable_bytes(std::span(text)));
  const json header = parse_json_object(text, file.path(), kHeaderDepth);
  const auto metadata = header.find("__metadata__");
  if (metadata == header.end() || !metadata->is_object() || !metadata->contains("strata_weights")) {
    throw FormatError(fmt::format(
        "{}: has no strata_weights in __metadata__: strata init --weights did not write it",
        file.path()));
  }
  for (const auto& [key, value] : metadata->items()) {
    if (!value.is_string()) {
      throw FormatError(fmt::format("{}: __metadata__ has {} {}, which is no text", file.path(),
                                    in_quotes(key), value.dump()));
    }
  }
  if (const std::string version = metadata->value("strata_version", "");
      version != std::to_string(kVersion)) {
    throw FormatError(fmt::format(
        "{}: has quantised weights of version \"{}\", and this program reads version {}; write "
        "them again",
        file.path(), version, kVersion));
  }
  return {.storage = {.compute = dtype_named(*metadata, "strata_compute", false, file.path()),
                      .weights = dtype_named(*metadata, "strata_weights", true, file.path())},
          .source = metadata->value("source", "")};
}

const QuantizedFile::Tensor& QuantizedFile::tensor(Parameter parameter) const {
  const auto found = by_name_.find(parameter->name);
  expects(found != by_name_.end(), "the parameter is another model's");
  return tensors_[found->second];
}

std::optional<StoredParameter> QuantizedFile::locate(Parameter parameter,
                                                     const std::filesystem::path& file) const {
  const auto found = by_name_.find(parameter->name);
  if (found == by_name_.end()) return std::nullopt;
  const Tensor& own = tensors_[found->second];
  return StoredParameter{file.string(), header_.size() + own.begin, own.dtype};
}

bool QuantizedFile::is(const ReadableFile& file) const {
  if (file.size() != bytes()) return false;
  std::string header(header_.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(header)));
  return header == header_;
}

void QuantizedFile::read(const ReadableFile& file, Parameter parameter, std::int64_t begin,
                         std::span<float> values) const {
  const Tensor& own = tensor(parameter);
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t unit = is_quantized(own.dtype) ? kGroupNumel : 1;
  const std::int64_t first = round_down(begin, unit);
  const std::int64_t last = round_up(begin + count, unit);
  std::vector<std::byte> bytes(storage_bytes(own.dtype, last - first));
  file.read(header_.size() + own.begin + storage_bytes(own.dtype, first), bytes);
  if (!is_quantized(own.dtype)) {
    return round_to(bytes.data(), own.dtype, {values.data(), Dtype::kF32, {count}});
  }
  std::vector<float> whole(static_cast<std::size_t>(last - first));
  dequantize(bytes.data(), own.dtype, whole);
  std::copy_n(whole.begin() + (begin - first), count, values.begin());
}

void QuantizedFile::write(const ParameterSource& from, const std::string& name, DurableFile& file,
                          const QuantizingProgress& progress) const {
  file.write(0, std::as_bytes(std::span(header_)));
  Quantizer(from, name, tensors_, header_.size(), file).run(progress);
}

}  // namespace strata
