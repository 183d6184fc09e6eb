#include <fmt/format.h>

#include <charconv>
#include <iostream>
#include <iterator>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/text/tokenizer.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/print_json.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct TokenizeOptions {
  fs::path model;
  std::string text;
  std::vector<std::string> decode;
  bool special = false;
  bool json = false;
};

std::string standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

std::vector<std::int32_t> parse_ids(const std::vector<std::string>& words) {
  std::vector<std::int32_t> ids;
  for (const std::string& word : words) {
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) {
      throw UsageError(fmt::format("--decode: \"{}\" is not a token id; give whole numbers", word));
    }
    ids.push_back(id);
  }
  return ids;
}

Json pieces_of(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  Json pieces = Json::array();
  for (const std::int32_t id : ids) {
    pieces.push_back({{"id", id}, {"text", tokenizer.decode(std::span(&id, 1), false)}});
  }
  return pieces;
}

std::string quoted(const Json& text) {
  return text.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int run_tokenize(const TokenizeOptions& options) {
  const std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(options.model);
  std::vector<std::int32_t> ids;
  if (!options.decode.empty()) {
    ids = parse_ids(options.decode);
  } else {
    const std::string text = options.text.empty() ? standard_input() : options.text;
    ids =
        tokenizer->encode(text, {.parse_special = options.special, .add_special = options.special});
  }
  const std::string text = tokenizer->decode(ids, false);
  const Json pieces = pieces_of(*tokenizer, ids);
  if (options.json) {
    const Json facts = {
        {"tokenizer", tokenizer->describe()}, {"ids", ids}, {"pieces", pieces}, {"text", text}};
    print_json(facts);
    return 0;
  }
  if (!options.decode.empty()) {
    fmt::print("{}\n", text);
    return 0;
  }
  for (const Json& piece : pieces) {
    fmt::print("{:>8}  {}\n", piece["id"].get<std::int32_t>(), quoted(piece["text"]));
  }
  fmt::print("{} tokens ({})\n", ids.size(), tokenizer->describe());
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command =
      app.add_subcommand("tokenize", "Show the tokens of a text, or the text of tokens");
  add_path(*command, "-m,--model", options->model, "PATH", "a model directory or a tokenizer.json")
      ->required();
  command->add_option("--text", options->text, "the text; without it standard input is read")
      ->type_name("TEXT");
  command->add_option("--decode", options->decode, "ids to turn back into text")
      ->type_name("ID...")
      ->excludes("--text");
  add_switch(*command, "--special", options->special,
             "special tokens in the text count, and those that the model expects are added");
  add_switch(*command, "--json", options->json, "print one JSON object");
  command->callback([options, &chosen] { chosen = [options] { return run_tokenize(*options); }; });
}

}  // namespace strata::cli
