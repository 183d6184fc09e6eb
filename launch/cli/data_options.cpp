#include "launch/cli/data_options.h"

#include <algorithm>
#include <string_view>

#include <CLI/CLI.hpp>

#include "core/text/chat_template.h"
#include "launch/cli/flags.h"

namespace strata::cli {

void add_data_flags(CLI::App& app, DataFlags& flags) {
  add_paths(app, "--data", flags.files, "FILE...",
            "what to read: texts, rows of JSON (.jsonl: text, prompt and completion, alpaca, "
            "messages, sharegpt), or token shards of llm.c (.bin)")
      ->required();
  std::vector<std::string> names{"auto"};
  for (const std::string_view name : chat_template_names()) names.emplace_back(name);
  add_name(
      app, "--chat_template", names, "auto",
      [&flags, names](std::size_t index) {
        flags.chat_template = index == 0 ? std::string() : names[index];
      },
      "how messages are written; auto: as the model's own template");
  add_switch(app, "--train_on_inputs", flags.train_on_inputs,
             "learn prompts and the user's messages, too");
  add_choice<std::optional<bool>>(app, "--reset_documents", flags.reset_documents,
                                  {{"auto", std::nullopt}, {"yes", true}, {"no", false}},
                                  "attention and positions start anew with each document; auto: "
                                  "for rows of JSON");
  add_path(app, "--cache", flags.cache, "DIR",
           "keeps tokenised data; default: $XDG_CACHE_HOME/strata or ~/.cache/strata");
}

DataOptions make_data_options(const DataFlags& flags, PretrainedModel& model,
                              std::int64_t sequence_length, Log& log) {
  DataOptions options{.sequence_length = sequence_length,
                      .rows = {.train_on_inputs = flags.train_on_inputs},
                      .vocabulary = model.config().vocab_size,
                      .reset_documents = flags.reset_documents,
                      .cache = flags.cache};
  options.chat = [&model, name = flags.chat_template] {
    return read_chat_template(model.directory(), model.tokenizer(), name);
  };
  options.warn = [&log](const std::string& line) { log.warn(line); };
  return options;
}

void check(const DataFlags& flags) { check_files("--data", flags.files); }

}  // namespace strata::cli
