#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/name_map.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "core/model/config.h"
#include "parallel/parameter_values.h"

namespace strata {

/// A Hugging Face model directory opened for reading: config.json and checked weights. Parameters
/// have Strata's names, shapes and layout; ranges of them are read when asked for, so each rank
/// reads only its shard. Reading is const and may happen on several threads at once.
class PretrainedReader {
 public:
  /// @throws FormatError that names the file at fault, IoError
  explicit PretrainedReader(const std::filesystem::path& directory);

  const ModelConfig& config() const noexcept { return config_; }
  /// Block by block, as name_map() lists them.
  const std::vector<MappedParameter>& parameters() const noexcept { return parameters_; }
  const SafetensorsReader& weights() const noexcept { return weights_; }

  /// Elements [begin, begin + count) of parameter `name`, flattened. Blocks.
  /// @throws Error if the model has no such parameter, FormatError, IoError
  void read(std::string_view name, std::int64_t begin, std::int64_t count, float* out) const;
  /// Where the parameter lies in a file, if it lies there as it is.
  /// @throws Error if the model has no such parameter
  std::optional<StoredParameter> locate(std::string_view name) const;

 private:
  const MappedParameter& mapped(std::string_view name) const;

  ModelConfig config_;
  SafetensorsReader weights_;
  std::vector<MappedParameter> parameters_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

/// Writes a model as transformers lays it out: weights in shards and config.json with the dtype
/// written. Parameters are written by Strata's names, each from its first to its last element; in
/// the order of name_map() one file is open at a time. A tensor that lies transposed or fused in
/// the file is assembled in memory as fp32 first; everything else passes through. A tied table is
/// stored once.
class PretrainedWriter {
 public:
  /// Creates `directory` if its parent exists.
  /// @throws UsageError, IoError
  PretrainedWriter(const std::filesystem::path& directory, const ModelConfig& config,
                   SafetensorsWriter::Options options);

  /// The next elements of parameter `name`. Blocks. @throws IoError; Error if there are too many
  void write(std::string_view name, std::span<const float> values);
  void write(std::string_view name, std::span<const bf16> values);

  /// @throws Error naming a parameter that is not complete, IoError
  void finish();

 private:
  struct Stream {
    MappedParameter mapped;
    std::int64_t written = 0;
    bool assembled = false;  ///< its tensor is built in memory
  };
  struct Assembly {
    std::vector<float> values;
    std::int64_t filled = 0;
  };
  template <typename T>
  void accept(std::string_view name, std::span<const T> values);
  template <typename T>
  void assemble(const Stream& stream, std::span<const T> values);

  std::filesystem::path directory_;
  ModelConfig config_;
  std::map<std::string, Stream, std::less<>> streams_;
  std::map<std::string, Assembly> assemblies_;
  SafetensorsWriter writer_;
};

/// Copies what lies beside the weights and is not Strata's to write: tokenizer, chat template,
/// generation_config.json. Files that are not there are passed over. @throws IoError
void copy_companion_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace strata
