#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "core/model/config.h"
#include "core/tensor.h"

namespace strata {

/// Where one Strata parameter lies in the tensors of a Hugging Face model.
struct TensorSource {
  enum class Layout : std::uint8_t {
    kRows,     ///< parameter[r, ...] = tensor[first + r, ...]
    kColumns,  ///< parameter[r, i] = tensor[i, first + r]: the [in, out] of GPT-2's Conv1D
  };

  std::string hf_name;
  Layout layout = Layout::kRows;
  std::int64_t first = 0;              ///< not 0 only in fused tensors (q | k | v)
  std::vector<std::int64_t> hf_shape;  ///< of the whole tensor
};

struct MappedParameter {
  std::string name;  ///< of the ParameterSpec
  Shape shape;
  TensorSource source;
};

/// All parameters of make_transformer(config), block by block, with the names transformers saves.
/// @pre config.family is one of the families of config.json
std::vector<MappedParameter> name_map(const ModelConfig& config);

/// The same with the names this model has: with or without the prefix of the family. Proves that
/// every tensor is there in its shape and that none is left over; buffers of old files (attention
/// masks, rotary frequencies) are ignored, and a tied model may repeat its table as lm_head.weight,
/// in which case both are read and compared. Reads no other weights.
/// @throws FormatError that names file and tensor
std::vector<MappedParameter> match_tensors(const ModelConfig& config,
                                           const SafetensorsReader& reader);

/// Elements [begin, begin + count) of the flattened parameter of `shape`, converted to float,
/// whatever the layout in the file. Blocks. Beside `out` it needs at most 1.5 MiB; a range of whole
/// rows reads the bytes of those rows about once.
/// @throws FormatError, IoError
void read_parameter_range(const SafetensorsReader& reader, const TensorSource& source,
                          const Shape& shape, std::int64_t begin, std::int64_t count, float* out);

}  // namespace strata
