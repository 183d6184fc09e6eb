#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained.h"
#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/model/transformer.h"
#include "core/text/tokenizer.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/print_json.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct InspectOptions {
  fs::path path;
  bool json = false;
};

Json tensor_facts(const SafetensorsReader& reader) {
  Json tensors = Json::array();
  for (const SafetensorsTensor& tensor : reader.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", tensor.type->name},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes},
                       {"file", fs::path(reader.path_of(tensor)).filename().string()}});
  }
  return tensors;
}

Json config_facts(const ModelConfig& config) {
  return {{"family", config.family},
          {"parameters", make_transformer(config).parameter_count()},
          {"tied", config.tied},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_size", config.head_size},
          {"intermediate", config.intermediate},
          {"vocab_size", config.vocab_size},
          {"max_positions", config.max_positions},
          {"dtype", name(config.weight_dtype)}};
}

/// Adds "tensors", their number and their bytes; checks headers, and with a config that every
/// tensor the model needs is there in its shape.
void add_weights(Json& facts, const SafetensorsReader& reader) {
  std::uint64_t bytes = 0;
  for (const SafetensorsTensor& tensor : reader.tensors()) bytes += tensor.bytes;
  facts["tensor_count"] = reader.tensors().size();
  facts["weight_bytes"] = bytes;
  facts["tensors"] = tensor_facts(reader);
}

Json directory_facts(const fs::path& directory) {
  // Pickles count: the reader says what to do with them.
  const char* const weights[] = {"model.safetensors", "model.safetensors.index.json",
                                 "pytorch_model.bin", "pytorch_model.bin.index.json"};
  const bool has_weights =
      std::ranges::any_of(weights, [&](const char* name) { return fs::exists(directory / name); });
  Json facts = {{"path", directory.string()}};
  if (!fs::exists(directory / "config.json")) {
    if (!has_weights) {
      throw UsageError(
          fmt::format("{}: neither config.json nor safetensors is here; name a model "
                      "directory or a .safetensors file",
                      directory.string()));
    }
    add_weights(facts, SafetensorsReader(directory));
    return facts;
  }
  if (!has_weights) {
    facts.update(config_facts(read_config(directory / "config.json")));
    return facts;
  }
  const PretrainedReader model(directory);
  facts.update(config_facts(model.config()));
  add_weights(facts, model.weights());
  return facts;
}

Json tokenizer_facts(const fs::path& path) {
  const std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(path);
  const std::int32_t end = tokenizer->end_of_document();
  return {
      {"tokenizer", tokenizer->describe()},
      {"end_of_document", fmt::format("{} {}", end, tokenizer->decode(std::span(&end, 1), false))}};
}

bool has_tokenizer(const fs::path& directory) {
  return fs::exists(directory / "tokenizer.json") ||
         (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt"));
}

Json facts_of(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw UsageError(fmt::format("{}: does not exist", path.string()));
  if (fs::is_directory(path, error)) {
    Json facts = directory_facts(path);
    if (has_tokenizer(path)) facts.update(tokenizer_facts(path));
    return facts;
  }
  if (path.filename() == "tokenizer.json") {
    Json facts = {{"path", path.string()}};
    facts.update(tokenizer_facts(path));
    return facts;
  }
  if (path.filename() == "config.json") {
    Json facts = {{"path", path.string()}};
    facts.update(config_facts(read_config(path)));
    return facts;
  }
  Json facts = {{"path", path.string()}};
  add_weights(facts, SafetensorsReader(path));
  return facts;
}

void print_facts(const Json& facts) {
  for (const auto& [key, value] : facts.items()) {
    if (key == "tensors") continue;
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (key == "parameters") text += fmt::format(" ({})", format_count(value.get<double>()));
    if (key == "weight_bytes")
      text += fmt::format(" ({})", format_bytes(value.get<std::uint64_t>()));
    fmt::print("{:<14} {}\n", key, text);
  }
  if (!facts.contains("tensors")) return;
  std::size_t widest = 0;
  for (const auto& tensor : facts["tensors"]) {
    widest = std::max(widest, tensor["name"].get_ref<const std::string&>().size());
  }
  for (const auto& tensor : facts["tensors"]) {
    fmt::print("{:<{}}  {:<5} {}  {}\n", tensor["name"].get<std::string>(), widest,
               tensor["dtype"].get<std::string>(), tensor["shape"].dump(),
               format_bytes(tensor["bytes"].get<std::uint64_t>()));
  }
}

int run_inspect(const InspectOptions& options) {
  const Json facts = facts_of(options.path);
  if (options.json) {
    print_json(facts);
  } else {
    print_facts(facts);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Check a model and list what is in it");
  add_path(*command, "path", options->path, "PATH",
           "a model directory, a config.json, a tokenizer.json or a safetensors file")
      ->required();
  add_switch(*command, "--json", options->json, "print one JSON object");
  command->callback([options, &chosen] { chosen = [options] { return run_inspect(*options); }; });
}

}  // namespace strata::cli
