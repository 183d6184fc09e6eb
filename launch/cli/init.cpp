#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained.h"
#include "checkpoint/pretrained_model.h"
#include "checkpoint/quantized_file.h"
#include "core/error.h"
#include "core/json_file.h"
#include "core/log.h"
#include "core/model/initial_values.h"
#include "core/model/transformer.h"
#include "core/progress.h"
#include "core/text/tokenizer.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/generator_setup.h"
#include "launch/cli/print_json.h"
#include "launch/generation/weight_names.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPieceElements = 1 << 20;
constexpr std::size_t kTokenizerCap = 64 << 20;  // bytes, as read_tokenizer()

struct InitOptions {
  std::string preset;
  fs::path config;
  fs::path out;
  fs::path tokenizer;
  std::int64_t seed = 42;
  Dtype dtype = Dtype::kF32;
  Dtype weights = Dtype::kBf16;  ///< kQ8 or kQ4: groups, and the rest in `dtype`
  bool overwrite = false;
  bool json = false;
  bool no_progress = false;
};

ModelConfig chosen_config(const InitOptions& options) {
  if (!options.preset.empty()) return preset(options.preset);
  if (options.config.empty()) {
    throw UsageError(fmt::format("--preset NAME or --config FILE is needed; presets are {}",
                                 fmt::join(preset_names(), ", ")));
  }
  check_files("--config", {options.config});
  return read_config(options.config);
}

void make_directories(const fs::path& path) {
  std::error_code cause;
  fs::create_directories(path, cause);
  if (cause) throw IoError("cannot create the directory", path.string(), 0, cause.value());
}

void write_parameters(const Model& model, const InitOptions& options, PretrainedWriter& writer) {
  Log log(0);
  Progress progress(log, "parameter", static_cast<std::uint64_t>(model.parameter_count()),
                    !options.no_progress);
  std::vector<float> piece(static_cast<std::size_t>(kPieceElements));
  std::uint64_t done = 0;
  for (int index = 0; index < model.block_count(); ++index) {
    for (const auto& parameter : model.block(index).parameters()) {
      const std::int64_t numel = parameter->shape.numel();
      for (std::int64_t begin = 0; begin < numel; begin += kPieceElements) {
        const auto count = static_cast<std::size_t>(std::min(kPieceElements, numel - begin));
        const std::span<float> values = std::span(piece).first(count);
        initial_values(*parameter, static_cast<std::uint64_t>(options.seed), begin, values);
        writer.write(parameter->name, std::span<const float>(values));
        progress.update(done += count);
      }
    }
  }
}

void write_safetensors(const Model& model, const ModelConfig& config, const InitOptions& options) {
  PretrainedWriter writer(options.out, config,
                          {.dtype = options.dtype, .overwrite = options.overwrite});
  write_parameters(model, options, writer);
  writer.finish();
}

/// The same values in groups, without a file of all of them in between.
void write_groups(const QuantizedFile& layout, ModelConfig config, const InitOptions& options) {
  Log log(0);
  DurableFile file(options.out / kQuantizedFile, layout.bytes());
  Progress progress(log, "MiB", layout.bytes() >> 20, !options.no_progress);
  layout.write(random_parameters(static_cast<std::uint64_t>(options.seed)), config.family, file,
               [&](std::uint64_t done, std::uint64_t) { progress.update(done >> 20); });
  file.sync();
  config.weight_dtype = options.dtype;
  write_text_file(options.out / "config.json", to_json(config));
  file.publish();
  sync_directory(options.out);
}

/// The text of the tokenizer.json to write; empty: the vocabulary is too small for bytes.
std::string tokenizer_text(const InitOptions& options, const ModelConfig& config) {
  const bool given = !options.tokenizer.empty();
  if (given) check_files("--tokenizer", {options.tokenizer});
  const auto tokenizer = given ? read_tokenizer(options.tokenizer) : make_byte_tokenizer();
  if (tokenizer->vocab_size() <= config.vocab_size) {
    return given ? read_text_file(options.tokenizer, kTokenizerCap) : byte_tokenizer_json();
  }
  if (!given) return "";
  throw UsageError(fmt::format("--tokenizer: {} has {} tokens but the model has room for {}",
                               options.tokenizer.string(), tokenizer->vocab_size(),
                               config.vocab_size));
}

int run_init(const InitOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const ModelConfig config = chosen_config(options);
  check_output("--out", options.out, options.overwrite);
  const Model model = make_transformer(config);
  const auto parameters = static_cast<std::uint64_t>(model.parameter_count());
  std::optional<QuantizedFile> groups;
  if (is_quantized(options.weights)) {
    for (const char* other : {"model.safetensors", "model.safetensors.index.json"}) {
      if (!fs::exists(options.out / other)) continue;
      throw UsageError(
          fmt::format("--out: {} has {}, which would be read in place of {}; choose "
                      "another directory, or remove it",
                      options.out.string(), other, kQuantizedFile));
    }
    groups.emplace(model, QuantizedFile::Facts{{options.dtype, options.weights}, "fresh"});
  }
  const std::uint64_t bytes = groups ? groups->bytes() : parameters * size_bytes(options.dtype);
  const std::string tokenizer = tokenizer_text(options, config);
  check_save_target(config, options.out,
                    {.dtype = options.dtype == Dtype::kBf16 ? SaveDtype::kBf16 : SaveDtype::kF32,
                     .overwrite = options.overwrite},
                    groups ? std::optional(bytes) : std::nullopt);
  make_directories(options.out);
  if (groups) {
    write_groups(*groups, config, options);
  } else {
    write_safetensors(model, config, options);
  }
  if (!tokenizer.empty()) write_text_file(options.out / "tokenizer.json", tokenizer);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (options.json) {
    print_json({{"out", options.out.string()},
                {"family", config.family},
                {"parameters", parameters},
                {"bytes", bytes},
                {"seed", options.seed},
                {"seconds", seconds}});
  } else {
    fmt::print("{}: {} with {} parameters, {} in {}, {}\n", options.out.string(), config.family,
               format_count(static_cast<double>(parameters)), format_bytes(bytes),
               weight_name(groups ? options.weights : options.dtype), format_seconds(seconds));
  }
  return 0;
}

}  // namespace

void add_init(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<InitOptions>();
  CLI::App* command =
      app.add_subcommand("init", "Write a randomly initialised model in Hugging Face layout");
  auto* config =
      add_path(*command, "--config", options->config, "FILE", "the shape, as a config.json");
  add_preset(*command, options->preset, "the shape, by name")->excludes(config);
  add_path(*command, "--out", options->out, "DIR",
           "gets config.json, safetensors and tokenizer.json")
      ->required();
  add_path(*command, "--tokenizer", options->tokenizer, "FILE",
           "a tokenizer.json to copy; default one that takes bytes");
  add_whole(*command, "--seed", options->seed, 0, std::numeric_limits<std::int64_t>::max(),
            "of the weights; the same seed gives the same bits");
  add_choice<Dtype>(*command, "--dtype", options->dtype,
                    {{"fp32", Dtype::kF32}, {"bf16", Dtype::kBf16}}, "of the weights in the file");
  add_weights_flag(
      *command, options->weights,
      "int8, int4: writes matrices in groups, quantized.safetensors, which only strata "
      "reads; bf16: as --dtype says");
  add_switch(*command, "--overwrite", options->overwrite,
             "write into a directory that is not empty");
  add_switch(*command, "--json", options->json, "print one JSON object");
  add_switch(*command, "--no_progress", options->no_progress, "no progress bar");
  command->callback([options, &chosen] { chosen = [options] { return run_init(*options); }; });
}

}  // namespace strata::cli
