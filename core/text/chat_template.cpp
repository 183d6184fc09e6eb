#include "core/text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/text/chat_renderers.h"
#include "core/text/jinja_text.h"

namespace strata {

/// A built-in renderer and how its template is recognised.
struct ChatTemplate::Kind {
  using Texts = std::vector<std::string_view>;

  std::string_view name;
  void (*render)(const ChatScene&, ChatWriter&);
  Texts tokens = {};             ///< that the tokenizer must have
  Texts marks = {};              ///< that the template has all of, in the form of canonical_jinja
  Texts misfits = {};            ///< that it has none of
  std::string_view bos = {};     ///< where the model names none; empty: the template has none
  std::string_view eos = {};     ///< the same
  std::string_view system = {};  ///< where a conversation has none
  bool alone = false;            ///< its tokens are enough to know it by

  static const std::vector<Kind>& all();
  static const Kind& named(std::string_view name);
  static const Kind& of_template(const ChatFacts& facts, const std::string& canonical);
  static const Kind& of_tokens(const Tokenizer& tokenizer, const ChatFacts& facts);
};

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxFileBytes = 64 << 20;
constexpr int kMaxDepth = 32;

std::string joined(std::span<const std::string_view> texts) {
  std::string result;
  for (const std::string_view text : texts) {
    result += fmt::format("{}{}", result.empty() ? "" : ", ", text);
  }
  return result;
}

/// A special token is a string, or an object with its content.
std::string token_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_object() ? value.value("content", "") : "";
}

/// A string, or a list of named templates of which "default" is for conversations without tools.
std::string template_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return "";
  for (const json& entry : value) {
    if (entry.value("name", "") == "default") return entry.value("template", "");
  }
  return "";
}

bool has_all(const Tokenizer& tokenizer, std::span<const std::string_view> tokens) {
  return std::ranges::all_of(
      tokens, [&](std::string_view token) { return tokenizer.find(token).has_value(); });
}

constexpr std::string_view kQwen2System = "You are a helpful assistant.";
constexpr std::string_view kQwen25System =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
constexpr std::string_view kHeaderTurn =
    "'<|start_header_id|>'+message['role']+'<|end_header_id|>\\n\\n'+message['content']|trim+"
    "'<|eot_id|>'";

}  // namespace

const std::vector<ChatTemplate::Kind>& ChatTemplate::Kind::all() {
  static const Texts im = {"<|im_start|>", "<|im_end|>"};
  static const Texts headers = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  static const Texts brackets = {"[INST]", "[/INST]"};
  static const Texts other_chatml = {"|trim", ".strip(", "<|im_sep|>", "<think>", "{%setsystem"};
  static const Texts other_inst = {"setsystem_message='", "default_system_message"};
  static const std::vector<Kind> kinds = {
      {.name = "chatml",
       .render = render_chatml,
       .tokens = im,
       .marks = {"'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>'+'\\n'"},
       .misfits = other_chatml,
       .alone = true},
      {.name = "chatml",
       .render = render_chatml,
       .tokens = im,
       .marks = {"{%setcontent=message['content']%}",
                 "'<|im_start|>'+message['role']+'\\n'+content+'<|im_end|>'+'\\n'"},
       .misfits = other_chatml},
      {.name = "qwen2", .render = render_chatml, .tokens = im, .system = kQwen2System},
      {.name = "qwen2.5", .render = render_chatml, .tokens = im, .system = kQwen25System},
      {.name = "qwen3",
       .render = render_qwen3,
       .tokens = im,
       .marks = {"enable_thinking", "loop.index0>ns.last_query_index", "'\\n<think>\\n'",
                 ".split('</think>')[-1].lstrip('\\n')"}},
      {.name = "llama-2",
       .render = render_llama2,
       .marks = {"'<<SYS>>\\n'+system_message+'\\n<</SYS>>\\n\\n'+message['content']",
                 "bos_token+'[INST] '+content.strip()+' [/INST]'",
                 "' '+content.strip()+' '+eos_token"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "llama-3",
       .render = render_llama3,
       .tokens = headers,
       .marks = {kHeaderTurn},
       .misfits = {"<|start_header_id|>system", "Date:"},
       .bos = "<|begin_of_text|>",
       .alone = true},
      {.name = "llama-3.1",
       .render = render_llama31,
       .tokens = headers,
       .marks = {kHeaderTurn, "'Cutting Knowledge Date: December 2023\\n'",
                 "'Today Date: '+date_string+'\\n\\n'", "'26 Jul 2024'"},
       .misfits = {"{# This block"},
       .bos = "<|begin_of_text|>"},
      {.name = "mistral-v0",
       .render = render_mistral_v0,
       .marks = {"{{'[INST] '+message['content']+' [/INST]'}}", "{{message['content']+eos_token}}"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "mistral-v1",
       .render = render_mistral_v1,
       .marks = {"{{' [INST] '+message['content']+' [/INST]'}}",
                 "{{' [INST] '+system_message+'\\n\\n'+message['content']+' [/INST]'}}",
                 "{{' '+message['content']+eos_token}}"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "mistral-v3",
       .render = render_mistral_v3,
       .tokens = brackets,
       .marks = {"{{'[INST] '+message['content']+'[/INST]'}}",
                 "{%ifloop.lastandsystem_messageisdefined%}",
                 "{{'[INST] '+system_message+'\\n\\n'+message['content']+'[/INST]'}}",
                 "{{' '+message['content']|trim+eos_token}}"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "mistral-v3-tekken",
       .render = render_mistral_v3_tekken,
       .tokens = brackets,
       .marks = {"{{'[INST]'+message['content']+'[/INST]'}}",
                 "{%ifloop.lastandsystem_messageisdefined%}",
                 "{{'[INST]'+system_message+'\\n\\n'+message['content']+'[/INST]'}}",
                 "{{message['content']+eos_token}}"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "mistral-v7",
       .render = render_mistral_v7,
       .tokens = {"[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
       .marks = {"{{'[INST] '+message['content']+'[/INST]'}}",
                 "{{'[SYSTEM_PROMPT] '+message['content']+'[/SYSTEM_PROMPT]'}}",
                 "{{' '+message['content']+eos_token}}"},
       .misfits = other_inst,
       .bos = "<s>",
       .eos = "</s>"},
      {.name = "plain", .render = render_plain},
  };
  return kinds;
}

const ChatTemplate::Kind& ChatTemplate::Kind::named(std::string_view name) {
  const auto found = std::ranges::find(all(), name, &Kind::name);
  if (found != all().end()) return *found;
  throw UsageError(fmt::format("--chat_template: \"{:.60}\" is not known; known are {}", name,
                               joined(chat_template_names())));
}

const ChatTemplate::Kind& ChatTemplate::Kind::of_template(const ChatFacts& facts,
                                                          const std::string& canonical) {
  const auto present = [&](std::string_view text) {
    return canonical.find(text) != std::string::npos;
  };
  for (const Kind& kind : all()) {
    if (kind.marks.empty() || !std::ranges::all_of(kind.marks, present)) continue;
    if (std::ranges::none_of(kind.misfits, present)) return kind;
  }
  throw UsageError(
      fmt::format("{}: its chat template is none of the built-in ones; name the one that fits with "
                  "--chat_template NAME, of {}",
                  facts.source, joined(chat_template_names())));
}

const ChatTemplate::Kind& ChatTemplate::Kind::of_tokens(const Tokenizer& tokenizer,
                                                        const ChatFacts& facts) {
  std::string wanted;
  for (const Kind& kind : all()) {
    if (!kind.alone) continue;
    if (has_all(tokenizer, kind.tokens)) return kind;
    wanted += fmt::format("{}{}", wanted.empty() ? "" : ", nor ", joined(kind.tokens));
  }
  throw UsageError(fmt::format(
      "{}: has no chat template, and its tokenizer has neither {}, which would tell; name one with "
      "--chat_template NAME, of {}",
      facts.source, wanted, joined(chat_template_names())));
}

ChatTemplate::ChatTemplate(const Kind& kind, ChatTokens tokens, std::string system)
    : kind_(&kind), tokens_(std::move(tokens)), system_(std::move(system)) {}

ChatTemplate ChatTemplate::choose(const Tokenizer& tokenizer, const ChatFacts& facts,
                                  std::string_view name) {
  const std::string canonical = canonical_jinja(facts.jinja);
  const bool recognises = name.empty() && !facts.jinja.empty();
  const Kind* kind = recognises     ? &Kind::of_template(facts, canonical)
                     : name.empty() ? &Kind::of_tokens(tokenizer, facts)
                                    : &Kind::named(name);
  std::string system(kind->system);
  ChatTokens tokens = {std::string(kind->bos), std::string(kind->eos)};
  if (!kind->bos.empty() && !facts.bos.empty()) tokens.bos = facts.bos;
  if (!kind->eos.empty() && !facts.eos.empty()) tokens.eos = facts.eos;
  if (kind->render == render_plain) {
    const std::int32_t end = tokenizer.end_of_document();
    tokens.eos = tokenizer.decode(std::span(&end, 1), false);
  }
  if (recognises && kind->render == render_chatml) {
    const std::optional<std::string> spelled = default_system_message(canonical);
    if (!spelled) {
      throw UsageError(fmt::format(
          "{}: its chat template begins with a system message that is not understood; name the "
          "template that fits with --chat_template NAME, of {}",
          facts.source, joined(chat_template_names())));
    }
    system = *spelled;
    for (const Kind& other : Kind::all()) {
      if (!system.empty() && other.system == system) kind = &other;
    }
    if (canonical.find("bos_token") != std::string::npos) tokens.bos = facts.bos;
  }
  std::vector<std::string_view> needed = kind->tokens;
  for (const std::string* token : {&tokens.bos, &tokens.eos}) {
    if (!token->empty()) needed.emplace_back(*token);
  }
  for (const std::string_view token : needed) {
    if (tokenizer.find(token)) continue;
    throw UsageError(
        fmt::format("{}: the chat template {} needs the token {:.60}, which the tokenizer lacks; "
                    "name another with --chat_template NAME, of {}",
                    facts.source, kind->name, token, joined(chat_template_names())));
  }
  return {*kind, std::move(tokens), std::move(system)};
}

std::vector<ChatPart> ChatTemplate::render(std::span<const ChatMessage> messages,
                                           bool add_generation_prompt) const {
  if (messages.empty()) throw FormatError("a conversation has no turns");
  for (const ChatMessage& message : messages) {
    if (message.role == "system" || message.role == "user" || message.role == "assistant") continue;
    throw FormatError(fmt::format(
        "a turn is of the role \"{:.60}\"; known are system, user and assistant", message.role));
  }
  ChatWriter writer;
  kind_->render({messages, add_generation_prompt, tokens_, system_}, writer);
  return std::move(writer.parts);
}

std::string_view ChatTemplate::name() const noexcept { return kind_->name; }

std::vector<std::string_view> chat_template_names() {
  std::vector<std::string_view> names;
  for (const ChatTemplate::Kind& kind : ChatTemplate::Kind::all()) {
    if (names.empty() || names.back() != kind.name) names.push_back(kind.name);
  }
  return names;
}

ChatFacts read_chat_facts(const fs::path& directory) {
  ChatFacts facts;
  facts.source = directory.string();
  const fs::path settings_file = directory / "tokenizer_config.json";
  const fs::path template_file = directory / "chat_template.jinja";
  if (fs::exists(settings_file)) {
    facts.source = settings_file.string();
    try {
      const json settings = parse_json_object(read_text_file(settings_file, kMaxFileBytes),
                                              settings_file.string(), kMaxDepth);
      facts.bos = token_text(settings.value("bos_token", json()));
      facts.eos = token_text(settings.value("eos_token", json()));
      facts.jinja = template_text(settings.value("chat_template", json()));
    } catch (const json::exception& error) {
      throw FormatError(fmt::format("{}: its chat template is not one: {:.200}",
                                    settings_file.string(), error.what()));
    }
  }
  if (fs::exists(template_file)) {
    facts.source = template_file.string();
    facts.jinja = read_text_file(template_file, kMaxFileBytes);
  }
  return facts;
}

ChatTemplate read_chat_template(const fs::path& directory, const Tokenizer& tokenizer,
                                std::string_view name) {
  return ChatTemplate::choose(tokenizer, read_chat_facts(directory), name);
}

}  // namespace strata
