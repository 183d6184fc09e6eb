#include "checkpoint/quantized_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_header.h"
#include "core/cache_entry.h"
#include "core/hash.h"
#include "core/json_file.h"
#include "core/units.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kVersion = QuantizedFile::kVersion;
constexpr const char* kWeights = "weights.bin";

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

/// One entry of the cache.
class WeightEntry {
 public:
  WeightEntry(const PretrainedModel& model, const WeightStorage& storage, const fs::path& cache)
      : description_(description_of(model.directory(), storage)),
        key_(hexadecimal(hash_text(description_.dump()))),
        directory_(fs::absolute(cache) / kWeightEntries / key_),
        file_(model.model(), {storage, key_}),
        lock_(directory_) {
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

  std::optional<StoredParameter> locate(Parameter parameter) const {
    return file_.locate(parameter, path(kWeights));
  }

 private:
  fs::path path(const char* file) const { return directory_ / file; }

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
    return file_.is(ReadableFile(path(kWeights)));
  }

  DurableFile reserve() const {
    try {
      return DurableFile(path(kWeights), file_.bytes());
    } catch (const IoError& error) {
      throw IoError(fmt::format("quantised weights take {}, and there is no room for them; free "
                                "some (strata clean), or choose another --cache",
                                format_bytes(file_.bytes())),
                    error.path(), 0, error.system_error());
    }
  }

  void make(const PretrainedModel& model, const QuantizingProgress& progress) const {
    std::error_code none;
    fs::remove(path(kEntryFacts), none);
    DurableFile file = reserve();
    file_.write(model.source(), model.directory().string(), file, progress);
    file.sync();
    file.publish();
    sync_directory(directory_);
    write_json_file(path(kEntryFacts), description_);
  }

  json description_;
  std::string key_;
  fs::path directory_;
  QuantizedFile file_;
  EntryLock lock_;
};

}  // namespace

std::uint64_t quantized_weights_bytes(const Model& model, const WeightStorage& storage) {
  return QuantizedFile(model, {storage, hexadecimal(0)}).bytes();
}

ParameterLocator quantized_weights(const PretrainedModel& source, const WeightStorage& storage,
                                   const fs::path& cache, const QuantizingProgress& progress) {
  expects(!source.directory().empty(), "weights are kept of models that lie in a directory");
  const auto entry = std::make_shared<WeightEntry>(source, storage, cache);
  entry->find_or_make(source, progress);
  return [entry](Parameter parameter) { return entry->locate(parameter); };
}

}  // namespace strata
