#include "checkpoint/pretrained_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/quantized_file.h"
#include "core/paths.h"
#include "core/units.h"
#include "optimizer/split.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPieceElements = 1 << 20;
constexpr const char* kTokenizer = "tokenizer.json";

Dtype dtype_in_file(SaveDtype dtype, const ModelConfig& config) {
  if (dtype == SaveDtype::kSource) return config.weight_dtype;
  return dtype == SaveDtype::kBf16 ? Dtype::kBf16 : Dtype::kF32;
}

std::uint64_t bytes_in_file(const ModelConfig& config, const SaveOptions& options) {
  std::uint64_t numel = 0;
  for (const MappedParameter& mapped : name_map(config)) {
    numel += static_cast<std::uint64_t>(mapped.shape.numel());
  }
  return numel * size_bytes(dtype_in_file(options.dtype, config));
}

/// The directory a model is saved into, and the ones above it that had to be made: they go again,
/// unless keep() was called or something lies in them.
class OutputDirectory {
 public:
  explicit OutputDirectory(const fs::path& path) {
    fs::path missing = fs::absolute(path).lexically_normal();
    if (!missing.has_filename()) missing = missing.parent_path();
    while (!fs::exists(missing)) {
      made_.push_back(missing);
      missing = missing.parent_path();
    }
    std::error_code cause;
    fs::create_directories(path, cause);
    if (cause) throw IoError("cannot create the directory", path.string(), 0, cause.value());
  }
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;
  ~OutputDirectory() {
    std::error_code ignored;
    for (const fs::path& directory : made_) fs::remove(directory, ignored);
  }
  void keep() { made_.clear(); }

 private:
  std::vector<fs::path> made_;  // the deepest first
};

/// Rank 0's side of a save. Members go in reverse order: files before their directory.
struct Output {
  Output(const fs::path& path, const ModelConfig& config, const SaveOptions& options)
      : directory(path),
        writer(path, config,
               {.dtype = dtype_in_file(options.dtype, config),
                .max_shard_bytes = options.max_shard_bytes,
                .overwrite = options.overwrite}) {}
  OutputDirectory directory;
  PretrainedWriter writer;
};

/// Opens the output on rank 0. What it refuses is refused everywhere, with the same words.
std::unique_ptr<Output> open_output(Communicator& world, const fs::path& path,
                                    const ModelConfig& config, const SaveOptions& options) {
  std::unique_ptr<Output> output;
  std::string refusal;
  if (world.rank() == 0) {
    try {
      check_save_target(config, path, options);
      output = std::make_unique<Output>(path, config, options);
    } catch (const UsageError& error) {
      refusal = error.what();
    }
  }
  const auto said = world.gather_bytes(std::as_bytes(std::span(refusal))).front();
  if (!said.empty()) {
    throw UsageError(std::string(reinterpret_cast<const char*>(said.data()), said.size()));
  }
  return output;
}

/// Every parameter of the config, in the order they are written.
std::vector<Parameter> parameters_to_save(const Model& model, const ModelConfig& config) {
  std::vector<Parameter> parameters;
  std::int64_t numel = 0;
  for (const MappedParameter& mapped : name_map(config)) {
    const Parameter parameter = model.find(mapped.name);
    if (parameter == nullptr || !(parameter->shape == mapped.shape)) {
      throw UsageError(fmt::format(
          "the trained model has {} {}{}, the config makes it {}; save it with the config that it "
          "was made from",
          parameter == nullptr ? "no parameter" : "a parameter", mapped.name,
          parameter == nullptr ? "" : " of shape " + parameter->shape.to_string(),
          mapped.shape.to_string()));
    }
    parameters.push_back(parameter);
    numel += parameter->shape.numel();
  }
  if (numel != model.parameter_count()) {
    throw UsageError(fmt::format(
        "the trained model has {} parameters, {} of which the config knows; save it with the "
        "config that it was made from",
        model.parameter_count(), numel));
  }
  return parameters;
}

/// One save, from the values of its parameters to files that are durable.
class Save {
 public:
  /// @param frozen gives the values of frozen parameters; none: the trainer does
  Save(const Context& context, const Model& model, const ModelConfig& config, const fs::path& out,
       const SaveOptions& options, ParameterSource frozen)
      : parameters_(parameters_to_save(model, config)),
        frozen_(std::move(frozen)),
        rounds_(dtype_in_file(options.dtype, config) == Dtype::kBf16),
        output_(open_output(context.communicator, out, config, options)) {}

  bool rounds() const noexcept { return rounds_; }
  /// What take() wants, in its order.
  std::vector<Parameter> wanted() const {
    std::vector<Parameter> wanted;
    std::ranges::copy_if(parameters_, std::back_inserter(wanted),
                         [&](Parameter parameter) { return !from_source(parameter); });
    return wanted;
  }
  /// Rank 0's; so is finish().
  void take(Parameter parameter, std::int64_t begin, std::span<const float> values) {
    copy_frozen();
    write(parameter, values);
    if (begin + static_cast<std::int64_t>(values.size()) == parameter->shape.numel()) ++next_;
  }
  void finish(const std::function<void()>& write_companions) {
    copy_frozen();
    write_companions();
    output_->writer.finish();
    output_->directory.keep();
  }

 private:
  bool from_source(Parameter parameter) const { return parameter->frozen && frozen_; }
  /// Those that come before the next one that is wanted.
  void copy_frozen() {
    std::vector<float> piece;
    for (; next_ < parameters_.size() && from_source(parameters_[next_]); ++next_) {
      piece.resize(static_cast<std::size_t>(kPieceElements));
      const std::int64_t numel = parameters_[next_]->shape.numel();
      for (std::int64_t begin = 0; begin < numel; begin += kPieceElements) {
        const auto count = static_cast<std::size_t>(std::min(kPieceElements, numel - begin));
        const std::span<float> values = std::span(piece).first(count);
        frozen_(parameters_[next_], begin, values);
        write(parameters_[next_], values);
      }
    }
  }
  void write(Parameter parameter, std::span<const float> values) {
    if (!rounds_) return output_->writer.write(parameter->name, values);
    rounded_.resize(values.size());
    std::ranges::transform(values, rounded_.begin(), [](float value) {
      bf16 high;
      high.bits = split(value).hi;
      return high;
    });
    output_->writer.write(parameter->name, std::span<const bf16>(rounded_));
  }

  std::vector<Parameter> parameters_;
  ParameterSource frozen_;
  bool rounds_;
  std::unique_ptr<Output> output_;  // of rank 0
  std::size_t next_ = 0;            // parameter to write
  std::vector<bf16> rounded_;
};

/// @param write_companions writes what else belongs to the model, @param durable is told then; both
/// on rank 0
void begin_save(const Context& context, Trainer& trainer, const ModelConfig& config,
                const fs::path& out, const SaveOptions& options, ParameterSource frozen,
                std::function<void()> write_companions, std::function<void()> durable) {
  const auto save =
      std::make_shared<Save>(context, trainer.model(), config, out, options, std::move(frozen));
  trainer.read_beside(
      save->wanted(), save->rounds() ? Dtype::kBf16 : Dtype::kF32,
      [save](Parameter parameter, std::int64_t begin, std::span<const float> values) {
        save->take(parameter, begin, values);
      },
      [save, write_companions = std::move(write_companions), durable = std::move(durable)] {
        save->finish(write_companions);
        durable();
      });
}

void end_save(const Context& context, Trainer& trainer) {
  trainer.finish_reading();
  context.communicator.barrier();
}

}  // namespace

PretrainedModel::PretrainedModel(const ModelConfig& config, const DropoutRates& dropout,
                                 ParameterSource source, ParameterLocator locator,
                                 std::filesystem::path directory)
    : config_(config),
      model_(std::make_unique<Model>(make_transformer(config, dropout))),
      source_(std::move(source)),
      locator_(std::move(locator)),
      directory_(std::move(directory)) {}

void PretrainedModel::freeze(const ParameterPatterns& patterns) {
  for (const std::string& name : frozen_parameters(config_, patterns)) model_->freeze(name);
}

void PretrainedModel::freeze_all() noexcept { model_->freeze_all(); }

const Tokenizer& PretrainedModel::tokenizer() {
  if (tokenizer_) return *tokenizer_;
  auto found = directory_.empty() ? make_byte_tokenizer() : read_tokenizer(directory_);
  if (found->vocab_size() > config_.vocab_size) {
    throw FormatError(
        fmt::format("{}: has {} tokens but the model's vocabulary has {}; use the tokenizer that "
                    "the model was trained with",
                    directory_.empty() ? "the byte tokenizer" : (directory_ / kTokenizer).string(),
                    found->vocab_size(), config_.vocab_size));
  }
  tokenizer_ = std::move(found);
  return *tokenizer_;
}

namespace {

/// A directory's quantised weights, open for reading.
struct QuantizedDirectory {
  explicit QuantizedDirectory(const fs::path& directory)
      : file(directory / kQuantizedFile), facts(QuantizedFile::facts_of(file)) {}

  /// @throws FormatError if the file is not one of this model
  void match(const Model& model, const ModelConfig& config) {
    layout.emplace(model, facts);
    if (layout->is(file)) return;
    throw FormatError(
        fmt::format("{}: does not hold the weights of the {} model that config.json beside it "
                    "describes, or is cut short; write both again with strata init --weights",
                    file.path(), config.family));
  }

  ReadableFile file;
  QuantizedFile::Facts facts;
  std::optional<QuantizedFile> layout;
};

bool keeps_quantized(const fs::path& directory) {
  std::error_code cause;
  return fs::exists(directory / kQuantizedFile, cause) &&
         !fs::exists(directory / "model.safetensors", cause) &&
         !fs::exists(directory / "model.safetensors.index.json", cause);
}

}  // namespace

PretrainedModel load_pretrained(const std::filesystem::path& directory,
                                const DropoutChoice& dropout) {
  if (keeps_quantized(directory)) {
    const ModelConfig config = read_config(directory / "config.json");
    const auto opened = std::make_shared<QuantizedDirectory>(directory);
    auto source = [opened](Parameter parameter, std::int64_t begin, std::span<float> values) {
      opened->layout->read(opened->file, parameter, begin, values);
    };
    auto locator = [opened](Parameter parameter) {
      return opened->layout->locate(parameter, opened->file.path());
    };
    PretrainedModel model(config, chosen_dropout(config, dropout), std::move(source),
                          std::move(locator), directory);
    opened->match(model.model(), config);
    model.kept_ = opened->facts.storage;
    return model;
  }
  const auto reader = std::make_shared<const PretrainedReader>(directory);
  auto source = [reader](Parameter parameter, std::int64_t begin, std::span<float> values) {
    reader->read(parameter->name, begin, static_cast<std::int64_t>(values.size()), values.data());
  };
  const DropoutRates rates = chosen_dropout(reader->config(), dropout);
  auto locator = [reader](Parameter parameter) { return reader->locate(parameter->name); };
  return PretrainedModel(reader->config(), rates, std::move(source), std::move(locator), directory);
}

PretrainedModel init_pretrained(const ModelConfig& config, std::uint64_t seed) {
  check(config, "the model's config");
  return PretrainedModel(config, {}, random_parameters(seed), {}, {});
}

void check_save_target(const ModelConfig& config, const std::filesystem::path& out,
                       const SaveOptions& options, std::optional<std::uint64_t> bytes) {
  std::error_code cause;
  const fs::path existing = nearest_existing(out);
  if (!fs::is_directory(existing, cause)) {
    throw UsageError(
        fmt::format("{}: is not a directory; save the model elsewhere", existing.string()));
  }
  if (access(existing.c_str(), W_OK | X_OK) != 0) {
    throw UsageError(
        fmt::format("{}: is not writable; save the model elsewhere", existing.string()));
  }
  if (!options.overwrite && fs::exists(out, cause) && !fs::is_empty(out, cause)) {
    throw UsageError(
        fmt::format("{}: is not empty; save the model elsewhere or overwrite it", out.string()));
  }
  const std::uint64_t needed = bytes ? *bytes : bytes_in_file(config, options);
  const fs::space_info space = fs::space(existing, cause);
  if (!cause && space.available < needed) {
    throw UsageError(
        fmt::format("{}: the model takes {} and its drive has {} left; save the model elsewhere",
                    out.string(), format_bytes(needed), format_bytes(space.available)));
  }
}

void save_pretrained_beside(const Context& context, Trainer& trainer, const PretrainedModel& source,
                            const std::filesystem::path& out, const SaveOptions& options,
                            std::function<void()> durable) {
  const auto write_companions = [&source, out] {
    if (!source.directory().empty()) {
      copy_companion_files(source.directory(), out);
    } else if (make_byte_tokenizer()->vocab_size() <= source.config().vocab_size) {
      write_text_file(out / kTokenizer, byte_tokenizer_json());
    }
  };
  begin_save(context, trainer, source.config(), out, options, source.source(), write_companions,
             std::move(durable));
}

void save_pretrained(const Context& context, Trainer& trainer, const PretrainedModel& source,
                     const std::filesystem::path& out, const SaveOptions& options) {
  save_pretrained_beside(context, trainer, source, out, options, [] {});
  end_save(context, trainer);
}

void save_pretrained(const Context& context, Trainer& trainer, const ModelConfig& config,
                     const std::filesystem::path& out, const SaveOptions& options) {
  begin_save(
      context, trainer, config, out, options, nullptr, [] {}, [] {});
  end_save(context, trainer);
}

}  // namespace strata
