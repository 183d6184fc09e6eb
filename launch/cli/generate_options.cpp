#include "launch/cli/generate_options.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/text/chat_template.h"
#include "launch/cli/flags.h"

namespace strata::cli {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

/// A flag whose default is what the model says.
template <typename Value, typename Target>
void take_if_given(GenerateOptions& options, CLI::Option* flag, const Value& value,
                   std::optional<Target> RequestOverrides::*target,
                   const char* otherwise = "the model's") {
  flag->default_str(otherwise);
  options.given.take.push_back([flag, &value, target](RequestOverrides& overrides) {
    if (flag->count() > 0) overrides.*target = static_cast<Target>(value);
  });
}

void add_sampling_flags(CLI::App& app, GenerateOptions& options) {
  using Overrides = RequestOverrides;
  auto& given = options.given;
  take_if_given(options,
                add_whole(app, "--max_new_tokens", given.max_new_tokens, 1, kMost,
                          "tokens to generate for a prompt at most"),
                given.max_new_tokens, &Overrides::max_tokens);
  add_switch(app, "--greedy", options.greedy, "the likeliest token, whatever the model says");
  take_if_given(options,
                add_real(app, "--temperature", given.temperature, 0, 100,
                         "logits are divided by it; 0: the likeliest token"),
                given.temperature, &Overrides::temperature);
  take_if_given(options,
                add_whole(app, "--top_k", given.top_k, 0, kMost,
                          "samples from the likeliest so many; 0: from all"),
                given.top_k, &Overrides::top_k);
  take_if_given(options,
                add_real(app, "--top_p", given.top_p, 1e-6, 1,
                         "samples from the likeliest that together have this probability"),
                given.top_p, &Overrides::top_p);
  take_if_given(options,
                add_real(app, "--min_p", given.min_p, 0, 1,
                         "samples from those at least so likely as this share of the likeliest"),
                given.min_p, &Overrides::min_p);
  take_if_given(options,
                add_real(app, "--repetition_penalty", given.repetition_penalty, 0.01, 100,
                         "above 1: tokens that the text has become less likely"),
                given.repetition_penalty, &Overrides::repetition_penalty);
  take_if_given(options,
                add_whole(app, "--seed", given.seed, 0, std::numeric_limits<std::int64_t>::max(),
                          "of chance, with the number of the row and the place in the text"),
                given.seed, &Overrides::seed, "0");
  app.add_option("--stop", options.overrides.stop, "a text ends before this string; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_option("--stop_ids", options.stop_ids,
                 "a text ends at these tokens, too: ids, or tokens as they are spelled")
      ->type_name("ID[,ID...]")
      ->delimiter(',')
      ->allow_extra_args(false);
  take_if_given(options,
                add_switch(app, "--logprobs", given.log_probabilities,
                           "results have the log-probability of each token"),
                given.log_probabilities, &Overrides::log_probabilities, "");
}

void add_template_flag(CLI::App& app, GenerateOptions& options) {
  std::vector<std::string> names{"auto"};
  for (const std::string_view name : chat_template_names()) names.emplace_back(name);
  add_name(
      app, "--chat_template", names, "auto",
      [&options, names](std::size_t index) {
        options.chat_template = index == 0 ? std::string() : names[index];
      },
      "how messages are written; auto: as the model's own template");
}

void add_prompt_flags(CLI::App& app, GenerateOptions& options) {
  app.add_option_function<std::string>(
         "--prompt", [&options](const std::string& text) { options.prompt = text; },
         "one text to go on with; what follows it is written as it grows")
      ->type_name("TEXT");
  add_path(app, "--prompts", options.prompts, "FILE",
           "rows of JSON: {id?, prompt | messages, max_tokens?, stop?, seed?, ...}, or those of "
           "OpenAI's batches; -: standard input");
  app.add_option_function<std::string>(
         "rows",
         [&options](const std::string& text) {
           if (text != "-") {
             throw UsageError(fmt::format(
                 "\"{}\" is not a flag; name a file with --prompts, or a text with --prompt",
                 text));
           }
           options.prompts = "-";
         },
         "-: as --prompts -")
      ->type_name("");
  add_path(app, "--out", options.out, "FILE", "where results go; default standard output");
  add_switch(app, "--resume", options.resume,
             "goes on with an --out of the same rows that was interrupted");
  add_switch(app, "--skip_bad", options.skip_bad, "passes over rows that cannot be read");
  add_switch(app, "--chat", options.chat, "--prompt is what a user says in a chat");
  add_template_flag(app, options);
  add_switch(app, "--parse_special", options.parse_special,
             "special tokens that a prompt spells are those tokens; in messages they never are");
}

/// How tokens are chosen, and memory.
void add_common_flags(CLI::App& app, GenerateOptions& options) {
  add_sampling_flags(app, options);
  add_whole(app, "--max_length", options.max_length, 0, kMost,
            "tokens of the longest text, its prompt too; 0: as the rows need");
  add_whole(app, "--speculate", options.speculate, 0, 256,
            "tokens that a text may get beyond the next one in a pass, if what followed its last "
            "words before follows again; in rows that cost no time");
  add_kept_flags(app, options.kept);
  add_streaming_flags(app, options.placement);
}

}  // namespace

void add_chat_flags(CLI::App& app, GenerateOptions& options) {
  add_path(app, "--model,-m", options.model, "DIR", "config.json and safetensors")->required();
  add_template_flag(app, options);
  add_common_flags(app, options);
}

void add_generate_flags(CLI::App& app, GenerateOptions& options) {
  add_path(app, "--model,-m", options.model, "DIR", "config.json and safetensors")->required();
  add_prompt_flags(app, options);
  add_whole(
      app, "--batch,--max_sequences", options.batch.most, 1, 1 << 16,
      "texts in flight on a rank at most; a pass over the weights serves them all. auto: 256, "
      "or more where they cost a pass no time");
  add_choice<Objective>(app, "--objective", options.batch.objective,
                        {{"throughput", Objective::kThroughput}, {"latency", Objective::kLatency}},
                        "latency: only as many texts in flight as cost a pass no time");
  add_switch(app, "--no_progress", options.no_progress, "no progress bar");
  add_path(app, "--trace", options.trace, "FILE",
           "gets who did what when, for Perfetto; of all ranks");
  add_common_flags(app, options);
}

void check_settings(GenerateOptions& options) {
  check_directory("--model", options.model);
  for (const auto& take : options.given.take) take(options.overrides);
  if (options.greedy) {
    if (options.overrides.temperature.value_or(0) > 0) {
      throw UsageError("--greedy and --temperature: use one of them");
    }
    options.overrides.temperature = 0;
  }
  for (const std::string& stop : options.overrides.stop) {
    if (stop.empty()) throw UsageError("--stop: the string is empty");
  }
  if (options.placement.compute == Dtype::kF16) {
    throw UsageError("--compute fp16: is for training; generate in bf16 or fp32");
  }
  check(options.placement);
}

void check(GenerateOptions& options) {
  if (options.prompt.has_value() != options.prompts.empty()) {
    throw UsageError(options.prompt ? "--prompt and --prompts: use one of them"
                                    : "nothing to go on with: use --prompt TEXT, --prompts FILE, "
                                      "or - for rows on standard input");
  }
  check_settings(options);
  const bool input = options.prompts == "-";
  if (!options.prompts.empty() && !input) check_files("--prompts", {options.prompts});
  if (options.chat && !options.prompt) {
    throw UsageError("--chat: is for --prompt; rows have messages where they are chats");
  }
  if (options.resume && options.out.empty()) {
    throw UsageError("--resume: needs the --out to go on with");
  }
  if (options.resume && options.prompt) {
    throw UsageError("--resume: is for --prompts; there is one --prompt");
  }
  if (options.overrides.log_probabilities && options.prompt && options.out.empty()) {
    throw UsageError("--logprobs: needs --out; a text alone has no place for them");
  }
  const std::filesystem::path place = options.trace.parent_path();
  if (!place.empty() && !std::filesystem::is_directory(place)) {
    throw UsageError(
        fmt::format("--trace: {} is no directory; the file is written at the end", place.string()));
  }
}

GenerationSettings choose_settings(const GenerateOptions& options, const Tokenizer& tokenizer,
                                   Log& log) {
  GenerationConfig config = read_generation_config(options.model, tokenizer);
  for (const std::string& warning : config.warnings) log.warn(warning);
  RequestOverrides overrides = options.overrides;
  overrides.stop_ids = parse_stop_ids(options.stop_ids, tokenizer);
  return overridden(std::move(config.settings), overrides);
}

std::vector<std::int32_t> parse_stop_ids(const std::vector<std::string>& texts,
                                         const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  for (const std::string& text : texts) {
    std::int32_t id = -1;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    const bool number = error == std::errc() && rest == text.data() + text.size();
    const std::optional<std::int32_t> token = number ? std::optional(id) : tokenizer.find(text);
    if (!token) {
      throw UsageError(
          fmt::format("--stop_ids: \"{}\" is no token of the model; --stop is for "
                      "strings of more than one token",
                      text));
    }
    if (*token < 0 || *token >= tokenizer.vocab_size()) {
      throw UsageError(
          fmt::format("--stop_ids: {} is not from 0 to {}", text, tokenizer.vocab_size() - 1));
    }
    ids.push_back(*token);
  }
  return ids;
}

}  // namespace strata::cli
