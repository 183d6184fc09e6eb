#include "checkpoint/pretrained.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace strata {
namespace {

std::vector<TensorDeclaration> declarations(const ModelConfig& config) {
  std::vector<TensorDeclaration> tensors;
  std::set<std::string> seen;
  for (const MappedParameter& mapped : name_map(config)) {
    if (seen.insert(mapped.source.hf_name).second) {
      tensors.push_back({mapped.source.hf_name, mapped.source.hf_shape});
    }
  }
  return tensors;
}

const std::filesystem::path& created(const std::filesystem::path& directory) {
  std::error_code cause;
  std::filesystem::create_directory(directory, cause);
  if (cause) throw IoError("cannot create the directory", directory.string(), 0, cause.value());
  return directory;
}

std::int64_t product(const std::vector<std::int64_t>& dims) {
  std::int64_t total = 1;
  for (const std::int64_t dim : dims) total *= dim;
  return total;
}

}  // namespace

PretrainedReader::PretrainedReader(const std::filesystem::path& directory)
    : config_(read_config(directory / "config.json")),
      weights_(directory),
      parameters_(match_tensors(config_, weights_)) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    by_name_.emplace(parameters_[i].name, i);
  }
}

const MappedParameter& PretrainedReader::mapped(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    throw Error(fmt::format("{}: the model has no parameter {}", weights_.path(), in_quotes(name)));
  }
  return parameters_[found->second];
}

void PretrainedReader::read(std::string_view name, std::int64_t begin, std::int64_t count,
                            float* out) const {
  const MappedParameter& parameter = mapped(name);
  read_parameter_range(weights_, parameter.source, parameter.shape, begin, count, out);
}

std::optional<StoredParameter> PretrainedReader::locate(std::string_view name) const {
  const TensorSource& source = mapped(name).source;
  if (source.layout != TensorSource::Layout::kRows) return std::nullopt;
  const SafetensorsTensor& tensor = weights_.at(source.hf_name);
  const Dtype dtype = tensor.type->dtype;
  const bool readable = tensor.type->supported &&
                        (dtype == Dtype::kF32 || dtype == Dtype::kBf16 || dtype == Dtype::kF16);
  if (!readable || tensor.shape.empty() || tensor.shape.front() == 0) return std::nullopt;
  const std::int64_t row = tensor.numel() / tensor.shape.front();
  const auto skipped = static_cast<std::uint64_t>(source.first * row) * size_bytes(dtype);
  return StoredParameter{weights_.path_of(tensor), tensor.begin + skipped, dtype};
}

PretrainedWriter::PretrainedWriter(const std::filesystem::path& directory,
                                   const ModelConfig& config, SafetensorsWriter::Options options)
    : directory_(directory),
      config_(config),
      writer_(created(directory), declarations(config), options) {
  config_.weight_dtype = options.dtype;
  for (MappedParameter& mapped : name_map(config)) {
    const bool assembled = mapped.source.layout == TensorSource::Layout::kColumns ||
                           product(mapped.source.hf_shape) != mapped.shape.numel();
    std::string name = mapped.name;
    streams_.emplace(std::move(name), Stream{std::move(mapped), 0, assembled});
  }
}

void PretrainedWriter::write(std::string_view name, std::span<const float> values) {
  accept(name, values);
}

void PretrainedWriter::write(std::string_view name, std::span<const bf16> values) {
  accept(name, values);
}

template <typename T>
void PretrainedWriter::accept(std::string_view name, std::span<const T> values) {
  const auto found = streams_.find(name);
  if (found == streams_.end()) throw Error("the model has no parameter " + in_quotes(name));
  Stream& stream = found->second;
  const auto count = static_cast<std::int64_t>(values.size());
  if (count > stream.mapped.shape.numel() - stream.written) {
    throw Error("parameter " + in_quotes(name) + " gets more elements than it has");
  }
  if (stream.assembled) {
    assemble(stream, values);
  } else {
    writer_.write(stream.mapped.source.hf_name, values);
  }
  stream.written += count;
}

template <typename T>
void PretrainedWriter::assemble(const Stream& stream, std::span<const T> values) {
  const TensorSource& source = stream.mapped.source;
  const std::int64_t whole = product(source.hf_shape);
  Assembly& assembly = assemblies_[source.hf_name];
  if (assembly.values.empty()) assembly.values.resize(static_cast<std::size_t>(whole));
  const bool columns = source.layout == TensorSource::Layout::kColumns;
  const std::int64_t inner = columns ? source.hf_shape[0] : 1;
  const std::int64_t pitch = columns ? source.hf_shape[1] : 1;
  std::int64_t row = stream.written / inner, i = stream.written % inner;
  for (const T value : values) {
    const std::int64_t to = columns ? i * pitch + source.first + row : source.first + row;
    assembly.values[static_cast<std::size_t>(to)] = static_cast<float>(value);
    if (++i == inner) {
      i = 0;
      ++row;
    }
  }
  assembly.filled += static_cast<std::int64_t>(values.size());
  if (assembly.filled < whole) return;
  writer_.write(source.hf_name, std::span<const float>(assembly.values));
  assemblies_.erase(source.hf_name);
}

void PretrainedWriter::finish() {
  for (const auto& [name, stream] : streams_) {
    const std::int64_t left = stream.mapped.shape.numel() - stream.written;
    if (left == 0) continue;
    throw Error(fmt::format("{}: parameter {} still lacks {} elements", directory_.string(),
                            in_quotes(name), left));
  }
  write_text_file(directory_ / "config.json", to_json(config_));
  writer_.finish();
}

void copy_companion_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "added_tokens.json", "chat_template.jinja", "generation_config.json"}) {
    std::error_code cause;
    if (!std::filesystem::exists(from / name, cause)) continue;
    const ReadableFile file(from / name);
    std::string text(file.size(), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    write_text_file(to / name, text);
  }
}

}  // namespace strata
