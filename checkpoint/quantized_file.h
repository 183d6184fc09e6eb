#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/model/block.h"
#include "parallel/parameter_values.h"
#include "parallel/weight_storage.h"

namespace strata {

/// Told how many bytes were written of how many, first of none. In the thread that asked for them.
using QuantizingProgress = std::function<void(std::uint64_t done, std::uint64_t all)>;

/// A file that holds a model's weights quantised. It is a safetensors file: a tensor per parameter
/// with Strata's name, U8 [rows, bytes of a row's groups] where it is quantised
/// (core/group_quantization.h), else with its shape, in the dtype of products. Each begins at a
/// multiple of 4096 bytes of the file; tensors "padding.N" lie between. __metadata__ has
/// "strata_weights": "q8" or "q4", "strata_compute": the dtype of products, "strata_version", and
/// "source": what tells what it was made of. All but the weights follows from the model and these.
class QuantizedFile {
 public:
  /// Counts changes of the layout and of what quantize() makes.
  static constexpr int kVersion = 1;

  /// What a file says of itself.
  struct Facts {
    WeightStorage storage;  ///< weights are kQ8 or kQ4
    std::string source;
  };

  struct Tensor {
    Parameter parameter = nullptr;
    Dtype dtype = Dtype::kBf16;
    std::uint64_t begin = 0;  ///< bytes after the header
    std::uint64_t bytes = 0;
  };

  /// @param model borrowed
  QuantizedFile(const Model& model, const Facts& facts);

  /// @throws FormatError that names the file: it is not such a file, or of another version; IoError
  static Facts facts_of(const ReadableFile& file);

  std::uint64_t bytes() const noexcept { return header_.size() + data_bytes_; }
  /// Where the parameter lies in `file`; none: the model does not have it.
  std::optional<StoredParameter> locate(Parameter parameter,
                                        const std::filesystem::path& file) const;
  /// Whether a file is this one, as far as its size and header tell.
  bool is(const ReadableFile& file) const;
  /// Elements [begin, begin + values.size()) of a parameter in `file`. Blocks. @throws IoError
  void read(const ReadableFile& file, Parameter parameter, std::int64_t begin,
            std::span<float> values) const;
  /// Quantises what `from` gives, on all cores that this process may use; about 10 MiB for each.
  /// @param name what messages call the model. @param file of bytes(); still to be synced
  /// @throws what `from` throws, FormatError for a value that is not finite, IoError
  void write(const ParameterSource& from, const std::string& name, DurableFile& file,
             const QuantizingProgress& progress) const;

 private:
  const Tensor& tensor(Parameter parameter) const;
  std::string header_of(const Facts& facts) const;

  std::vector<Tensor> tensors_;
  std::map<std::string, std::size_t> by_name_;
  std::uint64_t data_bytes_ = 0;
  std::string header_;
};

}  // namespace strata
