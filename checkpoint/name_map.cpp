#include "checkpoint/name_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>
#include <span>
#include <string_view>

#include "core/model/transformer.h"

namespace strata {
namespace {

/// One module of a family. With `part` >= 0 its output is that third of a fused q | k | v.
struct ModuleRow {
  const char* strata;
  const char* hf;
  bool transposed = false;
  int part = -1;
};

struct NameRow {
  const char* family;
  const char* prefix;  ///< of every name but lm_head's; some files have none
  const char* layer;   ///< after the prefix, before the number of the layer
  std::span<const ModuleRow> modules;
};

constexpr ModuleRow kGpt2[] = {
    {"embedding.tokens", "wte"},
    {"embedding.positions", "wpe"},
    {"attention_norm", "ln_1"},
    {"attention.q", "attn.c_attn", true, 0},
    {"attention.k", "attn.c_attn", true, 1},
    {"attention.v", "attn.c_attn", true, 2},
    {"attention.o", "attn.c_proj", true},
    {"mlp_norm", "ln_2"},
    {"mlp.up", "mlp.c_fc", true},
    {"mlp.down", "mlp.c_proj", true},
    {"head.norm", "ln_f"},
};
constexpr ModuleRow kLlama[] = {
    {"embedding.tokens", "embed_tokens"},
    {"attention_norm", "input_layernorm"},
    {"attention.q", "self_attn.q_proj"},
    {"attention.k", "self_attn.k_proj"},
    {"attention.v", "self_attn.v_proj"},
    {"attention.o", "self_attn.o_proj"},
    {"attention.q_norm", "self_attn.q_norm"},
    {"attention.k_norm", "self_attn.k_norm"},
    {"mlp_norm", "post_attention_layernorm"},
    {"mlp.gate", "mlp.gate_proj"},
    {"mlp.up", "mlp.up_proj"},
    {"mlp.down", "mlp.down_proj"},
    {"head.norm", "norm"},
};
constexpr ModuleRow kOpt[] = {
    {"embedding.tokens", "decoder.embed_tokens"},
    {"embedding.positions", "decoder.embed_positions"},
    {"embedding.project_in", "decoder.project_in"},
    {"attention_norm", "self_attn_layer_norm"},
    {"attention.q", "self_attn.q_proj"},
    {"attention.k", "self_attn.k_proj"},
    {"attention.v", "self_attn.v_proj"},
    {"attention.o", "self_attn.out_proj"},
    {"mlp_norm", "final_layer_norm"},
    {"mlp.up", "fc1"},
    {"mlp.down", "fc2"},
    {"head.norm", "decoder.final_layer_norm"},
    {"head.project_out", "decoder.project_out"},
};
/// Mistral and Qwen2 name what they have as Llama does; Qwen3 adds the norms of heads.
constexpr std::array kNames{
    NameRow{"gpt2", "transformer.", "h.", kGpt2},
    NameRow{"llama", "model.", "layers.", kLlama},
    NameRow{"mistral", "model.", "layers.", kLlama},
    NameRow{"qwen2", "model.", "layers.", kLlama},
    NameRow{"qwen3", "model.", "layers.", kLlama},
    NameRow{"opt", "model.", "decoder.layers.", kOpt},
};

constexpr const char* kHead = "lm_head.weight";
/// Ends of names of buffers that old files carry and models compute.
constexpr std::array<std::string_view, 3> kIgnored{".attn.bias", ".attn.masked_bias",
                                                   ".rotary_emb.inv_freq"};

const NameRow& names_of(const ModelConfig& config) {
  for (const NameRow& row : kNames) {
    if (config.family == row.family) return row;
  }
  throw Error(fmt::format("family \"{}\" has no Hugging Face layout", config.family));
}

/// "layers.7.attention.q.weight" -> {"layers.7.", "attention.q", ".weight"}; no layer: "".
struct NameParts {
  std::string_view layer, module, ending;
};

NameParts split(std::string_view name) {
  NameParts parts;
  if (name.starts_with("layers.")) {
    const std::size_t end = name.find('.', 7) + 1;
    parts.layer = name.substr(7, end - 7);  // "7."
    name.remove_prefix(end);
  }
  const std::size_t dot = name.rfind('.');
  parts.module = name.substr(0, dot);
  parts.ending = name.substr(dot);
  return parts;
}

std::vector<std::int64_t> shape_in_file(const Shape& shape, const ModuleRow& row) {
  std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
  if (row.part >= 0) dims[0] *= 3;
  if (row.transposed && dims.size() == 2) std::swap(dims[0], dims[1]);
  return dims;
}

TensorSource source_of(const NameRow& names, const ParameterSpec& parameter) {
  if (parameter.name == "head.weight") {
    const auto dims = parameter.shape.dims();
    return {kHead, TensorSource::Layout::kRows, 0, {dims.begin(), dims.end()}};
  }
  const NameParts parts = split(parameter.name);
  const auto row =
      std::find_if(names.modules.begin(), names.modules.end(),
                   [&](const ModuleRow& module) { return parts.module == module.strata; });
  expects(row != names.modules.end(), "every parameter of a family has a name in its files");
  TensorSource source;
  source.hf_name = fmt::format("{}{}{}{}{}", names.prefix, parts.layer.empty() ? "" : names.layer,
                               parts.layer, row->hf, parts.ending);
  const bool matrix = parameter.shape.rank() == 2;
  source.layout =
      row->transposed && matrix ? TensorSource::Layout::kColumns : TensorSource::Layout::kRows;
  source.first = std::max(row->part, 0) * parameter.shape[0];
  source.hf_shape = shape_in_file(parameter.shape, *row);
  return source;
}

bool is_ignored(std::string_view name) {
  return std::any_of(kIgnored.begin(), kIgnored.end(), [&](std::string_view ending) {
    // "h.0.attn.bias" is a mask, "h.0.self_attn.bias" would be something else
    return name.ends_with(ending) || name == ending.substr(1);
  });
}

void check_shape(const SafetensorsReader& reader, const SafetensorsTensor& tensor,
                 const std::vector<std::int64_t>& want) {
  if (tensor.shape == want) return;
  throw FormatError(fmt::format("{}: tensor {}: has the shape [{}]; the config makes it [{}]",
                                reader.path_of(tensor), in_quotes(tensor.name),
                                fmt::join(tensor.shape, ", "), fmt::join(want, ", ")));
}

/// A tied model whose file repeats the table: the copy must be one.
void check_tied_copy(const SafetensorsReader& reader, const SafetensorsTensor& table,
                     const SafetensorsTensor& copy) {
  check_shape(reader, copy, table.shape);
  constexpr std::int64_t kPiece = 64 << 10;
  std::vector<float> a(kPiece), b(kPiece);
  for (std::int64_t begin = 0; begin < table.numel(); begin += kPiece) {
    const std::int64_t count = std::min(kPiece, table.numel() - begin);
    reader.read(table, begin, count, a.data());
    reader.read(copy, begin, count, b.data());
    if (!std::equal(a.begin(), a.begin() + count, b.begin())) {
      throw FormatError(fmt::format(
          "{}: tensor {}: differs from {}, which it repeats in a tied model; set "
          "\"tie_word_embeddings\": false in config.json if the head has weights of its own",
          reader.path_of(copy), in_quotes(copy.name), in_quotes(table.name)));
    }
  }
}

}  // namespace

std::vector<MappedParameter> name_map(const ModelConfig& config) {
  const NameRow& names = names_of(config);
  std::vector<MappedParameter> map;
  const Model model = make_transformer(config);
  for (int block = 0; block < model.block_count(); ++block) {
    for (const auto& parameter : model.block(block).parameters()) {
      map.push_back({parameter->name, parameter->shape, source_of(names, *parameter)});
    }
  }
  return map;
}

std::vector<MappedParameter> match_tensors(const ModelConfig& config,
                                           const SafetensorsReader& reader) {
  const std::string_view prefix = names_of(config).prefix;
  std::vector<MappedParameter> map = name_map(config);
  std::set<std::string_view> used;
  for (MappedParameter& mapped : map) {
    std::string& name = mapped.source.hf_name;
    const SafetensorsTensor* tensor = reader.find(name);
    if (tensor == nullptr && name.starts_with(prefix)) {
      tensor = reader.find(std::string_view(name).substr(prefix.size()));
    }
    if (tensor == nullptr) {
      throw FormatError(fmt::format("{}: tensor {}: is missing{}", reader.path(), in_quotes(name),
                                    name == kHead ? ", and the config does not tie the head" : ""));
    }
    check_shape(reader, *tensor, mapped.source.hf_shape);
    if (!tensor->type->supported) {
      throw FormatError(fmt::format("{}: tensor {}: dtype {} is not supported",
                                    reader.path_of(*tensor), in_quotes(name), tensor->type->name));
    }
    name = tensor->name;
    used.insert(tensor->name);
  }
  for (const SafetensorsTensor& tensor : reader.tensors()) {
    if (used.count(tensor.name) != 0 || is_ignored(tensor.name)) continue;
    if (tensor.name == kHead && config.tied) {
      check_tied_copy(reader, reader.at(map.front().source.hf_name), tensor);
      continue;
    }
    throw FormatError(
        fmt::format("{}: tensor {}: belongs to no parameter of a {} model with {} layers",
                    reader.path_of(tensor), in_quotes(tensor.name), config.family, config.layers));
  }
  return map;
}

namespace {

/// Rows [row_begin, row_end) of a parameter that lies transposed, of which elements [begin, end) go
/// to `out`. Reads the strip of columns in blocks of file rows: piece by piece, or whole file rows
/// when little of them would be skipped.
class ColumnStrip {
 public:
  ColumnStrip(const SafetensorsReader& reader, const TensorSource& source)
      : reader_(reader),
        tensor_(reader.at(source.hf_name)),
        first_(source.first),
        inner_(source.hf_shape[0]),
        pitch_(source.hf_shape[1]) {}

  void read(std::int64_t begin, std::int64_t count, float* out) {
    const std::int64_t end = begin + count;
    const std::int64_t last_row = (end - 1) / inner_ + 1;
    for (std::int64_t row = begin / inner_; row < last_row; row += kMaxColumns) {
      strip(row, std::min(row + kMaxColumns, last_row), begin, end, out);
    }
  }

 private:
  static constexpr std::int64_t kMaxColumns = 16 << 10;
  static constexpr std::int64_t kPiece = 256 << 10;  // floats

  void strip(std::int64_t row_begin, std::int64_t row_end, std::int64_t begin, std::int64_t end,
             float* out) {
    const std::int64_t width = row_end - row_begin;
    const bool whole_rows = width * 4 >= pitch_ && pitch_ <= kPiece;
    const std::int64_t stride = whole_rows ? pitch_ : width;
    const std::int64_t skip = whole_rows ? first_ + row_begin : 0;
    const std::int64_t block = std::min(inner_, std::max<std::int64_t>(1, kPiece / stride));
    piece_.resize(static_cast<std::size_t>(block * stride));
    for (std::int64_t i = 0; i < inner_; i += block) {
      const std::int64_t now = std::min(block, inner_ - i);
      if (whole_rows) {
        reader_.read(tensor_, i * pitch_, now * pitch_, piece_.data());
      } else {
        for (std::int64_t j = 0; j < now; ++j) {
          reader_.read(tensor_, (i + j) * pitch_ + first_ + row_begin, width,
                       piece_.data() + j * stride);
        }
      }
      for (std::int64_t row = row_begin; row < row_end; ++row) {
        const float* column = piece_.data() + skip + (row - row_begin);
        const std::int64_t low = std::max(begin, row * inner_ + i);
        const std::int64_t high = std::min(end, row * inner_ + i + now);
        for (std::int64_t e = low; e < high; ++e) {
          out[e - begin] = column[(e - row * inner_ - i) * stride];
        }
      }
    }
  }

  const SafetensorsReader& reader_;
  const SafetensorsTensor& tensor_;
  std::int64_t first_, inner_, pitch_;
  std::vector<float> piece_;
};

}  // namespace

void read_parameter_range(const SafetensorsReader& reader, const TensorSource& source,
                          const Shape& shape, std::int64_t begin, std::int64_t count, float* out) {
  expects(begin >= 0 && count >= 0 && begin <= shape.numel() - count,
          "the range must lie in the parameter");
  if (count == 0) return;
  if (source.layout == TensorSource::Layout::kColumns) {
    ColumnStrip(reader, source).read(begin, count, out);
    return;
  }
  const std::int64_t row = shape.rank() == 0 ? 1 : shape.numel() / shape[0];
  reader.read(reader.at(source.hf_name), source.first * row + begin, count, out);
}

}  // namespace strata
