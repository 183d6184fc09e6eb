#include "core/text/chat_renderers.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/text/utf8.h"

namespace strata {
namespace {

using Messages = std::span<const ChatMessage>;

constexpr std::string_view kImStart = "<|im_start|>";
constexpr std::string_view kImEnd = "<|im_end|>";
constexpr std::string_view kEndOfTurn = "<|eot_id|>";
constexpr std::string_view kThought = "<think>";
constexpr std::string_view kThoughtEnd = "</think>";

bool is_user(const ChatMessage& message) { return message.role == "user"; }
bool is_system(const ChatMessage& message) { return message.role == "system"; }
bool is_assistant(const ChatMessage& message) { return message.role == "assistant"; }

/// What Python's str.strip() takes away.
bool strips(char32_t code) { return is_space(code) || (code >= 0x1c && code <= 0x1f); }

std::string_view stripped(std::string_view text) {
  while (!text.empty() && strips(first_character(text).code)) {
    text.remove_prefix(first_character(text).bytes);
  }
  while (!text.empty() && strips(last_character(text).code)) {
    text.remove_suffix(last_character(text).bytes);
  }
  return text;
}

std::string_view without_newlines_before(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  return text;
}

std::string_view without_newlines_behind(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

void im_turn(std::string_view role, std::string_view content, ChatWriter& writer) {
  const bool assistant = role == "assistant";
  writer.token(kImStart);
  writer.text(fmt::format("{}\n", role));
  writer.text(content, assistant);
  writer.token(kImEnd, assistant);
  writer.text("\n");
}

void header(std::string_view role, ChatWriter& writer) {
  writer.token("<|start_header_id|>");
  writer.text(role);
  writer.token("<|end_header_id|>");
  writer.text("\n\n");
}

void header_turn(std::string_view role, std::string_view content, ChatWriter& writer) {
  const bool assistant = role == "assistant";
  header(role, writer);
  writer.text(content, assistant);
  writer.token(kEndOfTurn, assistant);
}

/// A conversation of templates that take turns and have no role for the system message.
struct Alternating {
  const ChatMessage* system = nullptr;
  Messages turns;

  explicit Alternating(Messages messages) : turns(messages) {
    if (!turns.empty() && is_system(turns.front())) {
      system = &turns.front();
      turns = turns.subspan(1);
    }
    for (std::size_t i = 0; i < turns.size(); ++i) {
      const std::string_view wanted = i % 2 == 0 ? "user" : "assistant";
      if (turns[i].role == wanted) continue;
      throw FormatError(fmt::format(
          "turn {} is of the role \"{}\" where this chat template wants \"{}\": behind an optional "
          "system message, user and assistant take turns",
          i + (system != nullptr ? 2 : 1), turns[i].role, wanted));
    }
  }
  bool is_last(const ChatMessage& turn) const { return &turn == &turns.back(); }
  bool is_first(const ChatMessage& turn) const { return &turn == &turns.front(); }
};

/// [INST] and the like, tokens of the vocabulary.
void bracketed(std::string_view name, std::string_view content, ChatWriter& writer) {
  writer.token(fmt::format("[{}]", name));
  writer.text(content);
  writer.token(fmt::format("[/{}]", name));
}

/// The system message goes before the last turn, if that is the user's.
std::string v3_content(const Alternating& chat, const ChatMessage& turn) {
  return chat.system != nullptr && chat.is_last(turn)
             ? fmt::format("{}\n\n{}", chat.system->content, turn.content)
             : turn.content;
}

}  // namespace

void ChatWriter::token(std::string_view token, bool assistant) {
  parts.push_back({std::string(token), true, assistant});
}

void ChatWriter::text(std::string_view text, bool assistant) {
  if (text.empty()) return;
  if (!parts.empty() && !parts.back().special && parts.back().assistant == assistant) {
    parts.back().text += text;
  } else {
    parts.push_back({std::string(text), false, assistant});
  }
}

void render_chatml(const ChatScene& scene, ChatWriter& writer) {
  if (!scene.tokens.bos.empty()) writer.token(scene.tokens.bos);
  const bool has_system = !scene.messages.empty() && is_system(scene.messages.front());
  if (!has_system && !scene.system.empty()) im_turn("system", scene.system, writer);
  for (const ChatMessage& message : scene.messages) {
    im_turn(message.role, message.content, writer);
  }
  if (!scene.add_generation_prompt) return;
  writer.token(kImStart);
  writer.text("assistant\n");
}

void render_qwen3(const ChatScene& scene, ChatWriter& writer) {
  std::size_t last_query = scene.messages.size() - 1;
  for (std::size_t i = scene.messages.size(); i-- > 0;) {
    const std::string_view content = scene.messages[i].content;
    const bool is_result =
        content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (!is_user(scene.messages[i]) || is_result) continue;
    last_query = i;
    break;
  }
  for (std::size_t i = 0; i < scene.messages.size(); ++i) {
    const ChatMessage& message = scene.messages[i];
    std::string_view content = message.content;
    if (!is_assistant(message)) {
      im_turn(message.role, content, writer);
      continue;
    }
    std::string_view thought;
    if (const std::size_t first = content.find(kThoughtEnd); first != std::string_view::npos) {
      thought = without_newlines_behind(content.substr(0, first));
      const std::size_t begin = thought.rfind(kThought);
      if (begin != std::string_view::npos) thought.remove_prefix(begin + kThought.size());
      thought = without_newlines_before(thought);
      content.remove_prefix(content.rfind(kThoughtEnd) + kThoughtEnd.size());
      content = without_newlines_before(content);
    }
    const bool is_last = i + 1 == scene.messages.size();
    if (i > last_query && (is_last || !thought.empty())) {
      im_turn("assistant",
              fmt::format("<think>\n{}\n</think>\n\n{}",
                          without_newlines_behind(without_newlines_before(thought)),
                          without_newlines_before(content)),
              writer);
    } else {
      im_turn("assistant", content, writer);
    }
  }
  if (!scene.add_generation_prompt) return;
  writer.token(kImStart);
  writer.text("assistant\n");
}

void render_llama2(const ChatScene& scene, ChatWriter& writer) {
  const Alternating chat(scene.messages);
  for (const ChatMessage& turn : chat.turns) {
    if (is_assistant(turn)) {
      writer.text(fmt::format(" {} ", stripped(turn.content)), true);
      writer.token(scene.tokens.eos, true);
      continue;
    }
    const std::string content =
        chat.system != nullptr && chat.is_first(turn)
            ? fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n{}", chat.system->content, turn.content)
            : turn.content;
    writer.token(scene.tokens.bos);
    writer.text(fmt::format("[INST] {} [/INST]", stripped(content)));
  }
}

void render_llama3(const ChatScene& scene, ChatWriter& writer) {
  writer.token(scene.tokens.bos);
  for (const ChatMessage& message : scene.messages) {
    header_turn(message.role, stripped(message.content), writer);
  }
  if (scene.add_generation_prompt) header("assistant", writer);
}

void render_llama31(const ChatScene& scene, ChatWriter& writer) {
  Messages messages = scene.messages;
  std::string_view system;
  if (!messages.empty() && is_system(messages.front())) {
    system = stripped(messages.front().content);
    messages = messages.subspan(1);
  }
  writer.token(scene.tokens.bos);
  header_turn(
      "system",
      fmt::format("Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n{}", system),
      writer);
  for (const ChatMessage& message : messages) {
    header_turn(message.role, stripped(message.content), writer);
  }
  if (scene.add_generation_prompt) header("assistant", writer);
}

void render_mistral_v0(const ChatScene& scene, ChatWriter& writer) {
  const Alternating chat(scene.messages);
  if (chat.system != nullptr) {
    throw FormatError("this chat template has no system message; put it into the user's turn");
  }
  writer.token(scene.tokens.bos);
  for (const ChatMessage& turn : chat.turns) {
    if (is_user(turn)) {
      writer.text(fmt::format("[INST] {} [/INST]", turn.content));
    } else {
      writer.text(turn.content, true);
      writer.token(scene.tokens.eos, true);
    }
  }
}

void render_mistral_v1(const ChatScene& scene, ChatWriter& writer) {
  const Alternating chat(scene.messages);
  writer.token(scene.tokens.bos);
  for (const ChatMessage& turn : chat.turns) {
    if (is_assistant(turn)) {
      writer.text(fmt::format(" {}", turn.content), true);
      writer.token(scene.tokens.eos, true);
    } else if (chat.system != nullptr && chat.is_first(turn)) {
      writer.text(fmt::format(" [INST] {}\n\n{} [/INST]", chat.system->content, turn.content));
    } else {
      writer.text(fmt::format(" [INST] {} [/INST]", turn.content));
    }
  }
}

void render_mistral_v3(const ChatScene& scene, ChatWriter& writer) {
  const Alternating chat(scene.messages);
  writer.token(scene.tokens.bos);
  for (const ChatMessage& turn : chat.turns) {
    if (is_user(turn)) {
      bracketed("INST", fmt::format(" {}", v3_content(chat, turn)), writer);
    } else {
      writer.text(fmt::format(" {}", stripped(turn.content)), true);
      writer.token(scene.tokens.eos, true);
    }
  }
}

void render_mistral_v3_tekken(const ChatScene& scene, ChatWriter& writer) {
  const Alternating chat(scene.messages);
  writer.token(scene.tokens.bos);
  for (const ChatMessage& turn : chat.turns) {
    if (is_user(turn)) {
      bracketed("INST", v3_content(chat, turn), writer);
    } else {
      writer.text(turn.content, true);
      writer.token(scene.tokens.eos, true);
    }
  }
}

void render_mistral_v7(const ChatScene& scene, ChatWriter& writer) {
  writer.token(scene.tokens.bos);
  for (const ChatMessage& message : scene.messages) {
    if (is_assistant(message)) {
      writer.text(fmt::format(" {}", message.content), true);
      writer.token(scene.tokens.eos, true);
    } else {
      bracketed(is_user(message) ? "INST" : "SYSTEM_PROMPT", fmt::format(" {}", message.content),
                writer);
    }
  }
}

void render_plain(const ChatScene& scene, ChatWriter& writer) {
  for (const ChatMessage& message : scene.messages) {
    if (is_system(message)) {
      writer.text(fmt::format("{}\n\n", message.content));
    } else if (is_user(message)) {
      writer.text(fmt::format("User: {}\n", message.content));
    } else {
      writer.text("Assistant:");
      writer.text(fmt::format(" {}", message.content), true);
      writer.token(scene.tokens.eos, true);
      writer.text("\n");
    }
  }
  if (scene.add_generation_prompt) writer.text("Assistant:");
}

}  // namespace strata
