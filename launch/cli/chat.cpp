#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained_model.h"
#include "launch/cli/command_line.h"
#include "launch/cli/generate_options.h"
#include "launch/cli/generator_setup.h"
#include "launch/generation/generation_config.h"
#include "launch/generation/prompts.h"
#include "launch/generation/row_feed.h"
#include "launch/runtime.h"

namespace strata::cli {
namespace {

/// Tokens of a chat where neither flag nor model says less.
constexpr std::int64_t kUsualLength = 8192;

/// A conversation on the terminal of rank 0; the other ranks take part in its passes. The keys and
/// values of what was said stay, since every turn begins like the one before.
class Chat {
 public:
  Chat(Runtime& runtime, const GenerateOptions& options)
      : options_(options),
        runtime_(runtime),
        world_(runtime.communicator()),
        log_(world_.rank(), stderr, stderr),
        source_(load_pretrained(options.model)),
        tokenizer_(source_.tokenizer()),
        template_(read_chat_template(options.model, tokenizer_, options.chat_template)),
        prompts_(tokenizer_, [this] { return template_; }) {
    source_.freeze_all();
    settings_ = choose_settings(options, tokenizer_, log_);
  }

  int run() {
    const Context context{runtime_.device(), world_, log_};
    const GeneratorSetup setup =
        set_up_generator(context, source_, options_.placement, options_.kept,
                         {.sequences = 1, .sequence_tokens = most_tokens()});
    Generator generator(context, source_.model(), setup.options, source_.source(), setup.locator);
    TextGeneration texts(context, generator,
                         {.max_sequences = 1,
                          .max_tokens = most_tokens(),
                          .unknown = unknown_ids(tokenizer_, source_.config().vocab_size),
                          .speculate = options_.speculate,
                          .speculate_rows = setup.hidden_rows});
    log_.info(fmt::format("chat template {}; sampling: {}", template_.name(),
                          describe(settings_, tokenizer_)));
    log_.info("/reset begins anew, /exit or the end of the input ends");
    while (read_turn()) answer(texts);
    return 0;
  }

 private:
  std::int64_t most_tokens() const {
    const std::int64_t positions = source_.config().max_positions;
    const std::int64_t wanted = options_.max_length > 0 ? options_.max_length : kUsualLength;
    return std::min(wanted, positions);
  }

  /// What the user says next. Collective. @return false: nothing more
  bool read_turn() {
    bool more = false;
    if (world_.rank() == 0) more = read_line();
    return world_.max(more ? 1 : 0) > 0;
  }
  bool read_line() {
    const bool terminal = isatty(STDIN_FILENO) == 1;
    for (std::string line; !runtime_.stop_requested();) {
      if (terminal) {
        std::fputs("> ", stderr);
        std::fflush(stderr);
      }
      if (!std::getline(std::cin, line) || line == "/exit") return false;
      if (line == "/reset") {
        messages_.clear();
        continue;
      }
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      messages_.push_back({"user", line});
      return true;
    }
    return false;
  }

  void answer(TextGeneration& texts) {
    std::string said;
    bool asked = world_.rank() == 0;
    RowFeed feed(
        world_, tokenizer_, prompts_,
        {.settings = settings_,
         .most_tokens = most_tokens(),
         .show =
             [&said](const std::string& piece) {
               said += piece;
               show_piece(piece);
             }},
        [&]() -> std::optional<NumberedRow> {
          if (!std::exchange(asked, false)) return std::nullopt;
          NumberedRow row{.row = {}, .number = turn_++, .where = "the chat"};
          row.row.messages = messages_;
          return row;
        },
        nullptr);
    texts.run([&] { return feed.next(); }, [&](const GenerationProgress&) { feed.exchange(); });
    feed.exchange();
    if (world_.rank() != 0) return;
    std::fputc('\n', stdout);
    std::fflush(stdout);
    if (feed.progress().errors == 0) {
      messages_.push_back({"assistant", said});
      return;
    }
    log_.warn(feed.last_error() + "; /reset begins anew");
    messages_.pop_back();
  }

  const GenerateOptions& options_;
  Runtime& runtime_;
  Communicator& world_;
  Log log_;
  PretrainedModel source_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
  PromptEncoder prompts_;
  GenerationSettings settings_;
  std::vector<ChatMessage> messages_;  // of rank 0
  std::int64_t turn_ = 0;
};

}  // namespace

void add_chat(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("chat", "Talks with a model, in its own chat template");
  add_chat_flags(*command, *options);
  command->callback([options, &chosen] {
    chosen = [options] {
      check_settings(*options);
      return run_generation(options->placement, options->kept,
                            [&](Runtime& runtime) { return Chat(runtime, *options).run(); });
    };
  });
}

}  // namespace strata::cli
