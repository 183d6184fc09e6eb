#include "checkpoint/quantized_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_header.h"
#include "core/cache_entry.h"
#include "core/group_quantization.h"
#include "core/hash.h"
#include "core/json_file.h"
#include "core/process.h"
#include "core/units.h"
#include "parallel/rounding.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Counts changes of the file's layout and of what quantize() makes.
constexpr int kVersion = 1;
constexpr const char* kWeights = "weights.bin";
constexpr std::uint64_t kAlignment = 4096;
/// Elements that are quantised at once, but for longer rows.
constexpr std::int64_t kPiece = 1 << 20;

/// Where a parameter lies in the file.
struct FileTensor {
  Parameter parameter = nullptr;
  Dtype dtype = Dtype::kBf16;
  std::uint64_t begin = 0;  ///< bytes after the header
  std::uint64_t bytes = 0;
};

std::vector<FileTensor> tensors_of(const Model& model, const WeightStorage& storage) {
  expects(is_quantized(storage.weights), "weights that are kept quantised are q8 or q4");
  std::vector<FileTensor> tensors;
  std::uint64_t end = 0;
  for (int index = 0; index < model.block_count(); ++index) {
    for (const auto& parameter : model.block(index).parameters()) {
      FileTensor tensor{.parameter = parameter.get(), .dtype = storage.of(*parameter)};
      tensor.begin = round_up(end, kAlignment);
      tensor.bytes = storage_bytes(tensor.dtype, parameter->shape.numel());
      end = tensor.begin + tensor.bytes;
      tensors.push_back(tensor);
    }
  }
  return tensors;
}

/// A tensor of a safetensors header.
json entry(const char* dtype, json shape, std::uint64_t begin, std::uint64_t end) {
  return {{"dtype", dtype}, {"shape", std::move(shape)}, {"data_offsets", {begin, end}}};
}

json entry(const FileTensor& tensor) {
  const Shape& shape = tensor.parameter->shape;
  json dims = json::array();
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  if (is_quantized(tensor.dtype))
    dims.back() = storage_bytes(tensor.dtype, shape[shape.rank() - 1]);
  const char* dtype = is_quantized(tensor.dtype)    ? "U8"
                      : tensor.dtype == Dtype::kF32 ? "F32"
                      : tensor.dtype == Dtype::kF16 ? "F16"
                                                    : "BF16";
  return entry(dtype, std::move(dims), tensor.begin, tensor.begin + tensor.bytes);
}

/// What the file begins with, a multiple of kAlignment long.
std::string header_of(const std::vector<FileTensor>& tensors, const WeightStorage& storage,
                      const std::string& key) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"strata_weights", name(storage.weights)},
                            {"strata_version", std::to_string(kVersion)},
                            {"source", key}};
  std::uint64_t end = 0;
  for (const FileTensor& tensor : tensors) {
    if (tensor.begin > end) {
      header[fmt::format("padding.{}", header.size())] =
          entry("U8", {tensor.begin - end}, end, tensor.begin);
    }
    header[tensor.parameter->name] = entry(tensor);
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

/// What tells one state of the model's directory from another, without reading the weights.
json description_of(const fs::path& directory, const WeightStorage& storage) {
  std::vector<fs::path> paths{directory / "config.json"};
  for (const fs::directory_entry& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".safetensors") paths.push_back(file.path());
  }
  std::ranges::sort(paths);
  json files = json::array();
  for (const fs::path& path : paths) {
    const ReadableFile file(path);
    std::uint64_t end = file.size();
    if (path.extension() == ".safetensors") {
      std::string first(std::min<std::uint64_t>(8, end), '\0');
      file.read(0, std::as_writable_bytes(std::span(first)));
      end = 8 + safetensors_header_bytes(first, end, file.path());
    }
    files.push_back({{"name", path.filename().string()},
                     {"size", file.size()},
                     {"changed", change_time(path)},
                     {"hash", hexadecimal(hash_range(file, 0, end))}});
  }
  return {{"version", kVersion},
          {"weights", name(storage.weights)},
          {"compute", name(storage.compute)},
          {"files", files}};
}

/// Quantises a model into a file, on several threads.
class Quantizer {
 public:
  Quantizer(const ParameterSource& source, const std::string& model,
            const std::vector<FileTensor>& tensors, std::uint64_t header, DurableFile& file)
      : source_(source), model_(model), tensors_(tensors), header_(header), file_(file) {
    for (const FileTensor& tensor : tensors) all_ += tensor.bytes;
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
    const FileTensor* tensor = nullptr;
    std::int64_t begin = 0;
    std::int64_t numel = 0;
  };

  /// Whole rows, so that every one of them is read once.
  std::optional<Piece> next() {
    const std::lock_guard lock(mutex_);
    if (stopped_ || tensor_ == tensors_.size()) return std::nullopt;
    const FileTensor& tensor = tensors_[tensor_];
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
  const std::vector<FileTensor>& tensors_;
  const std::uint64_t header_;
  DurableFile& file_;
  std::uint64_t all_ = 0;
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;  // of what follows
  std::size_t tensor_ = 0;
  std::int64_t begin_ = 0;
  bool stopped_ = false;
};

/// One entry of the cache.
class WeightEntry {
 public:
  WeightEntry(const PretrainedModel& model, const WeightStorage& storage, const fs::path& cache)
      : description_(description_of(model.directory(), storage)),
        key_(hexadecimal(hash_text(description_.dump()))),
        directory_(fs::absolute(cache) / kWeightEntries / key_),
        tensors_(tensors_of(model.model(), storage)),
        header_(header_of(tensors_, storage, key_)),
        lock_(directory_) {
    for (const FileTensor& tensor : tensors_)
      by_name_.emplace(tensor.parameter->name, stored(tensor));
    description_["names"] = {
        fmt::format("{} in {}", fs::absolute(model.directory()).string(), name(storage.weights))};
  }

  void find_or_make(const PretrainedModel& model, const QuantizingProgress& progress) {
    lock_.share();
    if (complete()) return;
    lock_.own();
    if (!complete()) make(model, progress);
    lock_.share();
  }

  std::optional<StoredParameter> locate(const std::string& parameter) const {
    const auto found = by_name_.find(parameter);
    return found == by_name_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  fs::path path(const char* file) const { return directory_ / file; }
  std::uint64_t file_bytes() const {
    return header_.size() + tensors_.back().begin + tensors_.back().bytes;
  }
  StoredParameter stored(const FileTensor& tensor) const {
    return {path(kWeights).string(), header_.size() + tensor.begin, tensor.dtype};
  }

  /// Whether the file is there as it would be made, as far as its size and header tell.
  bool complete() const {
    const fs::path facts = path(kEntryFacts);
    if (!fs::exists(facts) || !fs::exists(path(kWeights))) return false;
    json entry;
    try {
      entry =
          parse_json_object(read_text_file(facts, kMostEntryBytes), facts.string(), kEntryDepth);
    } catch (const FormatError&) {
      return false;
    }
    if (const json version = entry.value("version", json()); version != kVersion) {
      throw FormatError(
          fmt::format("{}: has weights of version {}, and this program reads version {}; remove "
                      "them with strata clean --remove",
                      facts.string(), version.dump(), kVersion));
    }
    const ReadableFile file(path(kWeights));
    if (file.size() != file_bytes()) return false;
    std::string header(header_.size(), '\0');
    file.read(0, std::as_writable_bytes(std::span(header)));
    return header == header_;
  }

  DurableFile reserve() const {
    try {
      return DurableFile(path(kWeights), file_bytes());
    } catch (const IoError& error) {
      throw IoError(fmt::format("quantised weights take {}, and there is no room for them; free "
                                "some (strata clean), or choose another --cache",
                                format_bytes(file_bytes())),
                    error.path(), 0, error.system_error());
    }
  }

  void make(const PretrainedModel& model, const QuantizingProgress& progress) const {
    std::error_code none;
    fs::remove(path(kEntryFacts), none);
    DurableFile file = reserve();
    file.write(0, std::as_bytes(std::span(header_)));
    Quantizer(model.source(), model.directory().string(), tensors_, header_.size(), file)
        .run(progress);
    file.sync();
    file.publish();
    sync_directory(directory_);
    write_json_file(path(kEntryFacts), description_);
  }

  json description_;
  std::string key_;
  fs::path directory_;
  std::vector<FileTensor> tensors_;
  std::string header_;
  EntryLock lock_;
  std::map<std::string, StoredParameter> by_name_;
};

}  // namespace

std::uint64_t quantized_weights_bytes(const Model& model, const WeightStorage& storage) {
  const std::vector<FileTensor> tensors = tensors_of(model, storage);
  return header_of(tensors, storage, hexadecimal(0)).size() + tensors.back().begin +
         tensors.back().bytes;
}

ParameterLocator quantized_weights(const PretrainedModel& source, const WeightStorage& storage,
                                   const fs::path& cache, const QuantizingProgress& progress) {
  expects(!source.directory().empty(), "weights are kept of models that lie in a directory");
  const auto entry = std::make_shared<WeightEntry>(source, storage, cache);
  entry->find_or_make(source, progress);
  return [entry](Parameter parameter) { return entry->locate(parameter->name); };
}

}  // namespace strata
