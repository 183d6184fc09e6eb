#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "core/text/training_rows.h"
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
  std::string row;
  std::string chat_template;
  bool train_on_inputs = false;
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

/// A row of training data as `strata train` understands it: a plus marks what is learnt.
int show_row(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  const RowForm form = detect_row_form(options.row, "--row");
  std::optional<ChatTemplate> chat;
  if (form == RowForm::kMessages || form == RowForm::kShareGpt) {
    const bool is_directory = fs::is_directory(options.model);
    chat = read_chat_template(is_directory ? options.model : options.model.parent_path(), tokenizer,
                              options.chat_template);
  }
  const RowReader reader(form, tokenizer, chat ? &*chat : nullptr,
                         {.train_on_inputs = options.train_on_inputs});
  Document document;
  reader.read(options.row, "--row", document);
  Json pieces = pieces_of(tokenizer, document.ids);
  for (std::size_t i = 0; i < pieces.size(); ++i) pieces[i]["trained"] = document.trained[i] == 1;
  const auto trained = std::ranges::count(document.trained, 1);
  if (options.json) {
    const Json facts = {{"tokenizer", tokenizer.describe()},
                        {"form", describe(form)},
                        {"chat_template", chat ? Json(chat->name()) : Json()},
                        {"ids", document.ids},
                        {"trained", trained},
                        {"pieces", pieces},
                        {"text", tokenizer.decode(document.ids, false)}};
    fmt::print("{}\n", facts.dump(2, ' ', false, Json::error_handler_t::replace));
    return 0;
  }
  for (const Json& piece : pieces) {
    fmt::print("{} {:>8}  {}\n", piece["trained"].get<bool>() ? '+' : ' ',
               piece["id"].get<std::int32_t>(), quoted(piece["text"]));
  }
  fmt::print("{} tokens, {} of them (+) to be learnt ({}{}; {})\n", document.ids.size(), trained,
             describe(form), chat ? fmt::format(", chat template {}", chat->name()) : "",
             tokenizer.describe());
  return 0;
}

int run_tokenize(const TokenizeOptions& options) {
  const std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(options.model);
  if (!options.row.empty()) return show_row(options, *tokenizer);
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
  CLI::Option* row =
      command->add_option("--row", options->row, "a line of a JSONL file, as training reads it")
          ->type_name("JSON")
          ->excludes("--text")
          ->excludes("--decode");
  command
      ->add_option("--chat_template", options->chat_template,
                   "the built-in chat template for --row, if not the model's")
      ->type_name("NAME")
      ->needs(row);
  add_switch(*command, "--train_on_inputs", options->train_on_inputs,
             "prompts of --row are learnt too");
  add_switch(*command, "--special", options->special,
             "special tokens in the text count, and those that the model expects are added");
  add_switch(*command, "--json", options->json, "print one JSON object");
  command->callback([options, &chosen] { chosen = [options] { return run_tokenize(*options); }; });
}

}  // namespace strata::cli
