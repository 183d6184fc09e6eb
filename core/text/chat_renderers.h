#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/chat_template.h"

namespace strata {

// Internal to core/text: the built-in renderers of chat_template.h. Not installed.

/// Collects parts. Text that follows text of the same side joins it, so that it is tokenised whole.
class ChatWriter {
 public:
  void token(std::string_view token, bool assistant = false);
  void text(std::string_view text, bool assistant = false);
  std::vector<ChatPart> parts;
};

struct ChatScene {
  std::span<const ChatMessage> messages;
  bool add_generation_prompt = false;
  const ChatTokens& tokens;   ///< bos is empty where the template has none
  const std::string& system;  ///< where the conversation has none; may be empty
};

// Each throws FormatError for an order of turns that its template does not know. Roles are known.

void render_chatml(const ChatScene& scene, ChatWriter& writer);
void render_qwen3(const ChatScene& scene, ChatWriter& writer);
void render_llama2(const ChatScene& scene, ChatWriter& writer);
void render_llama3(const ChatScene& scene, ChatWriter& writer);
void render_llama31(const ChatScene& scene, ChatWriter& writer);
void render_mistral_v0(const ChatScene& scene, ChatWriter& writer);
void render_mistral_v1(const ChatScene& scene, ChatWriter& writer);
void render_mistral_v3(const ChatScene& scene, ChatWriter& writer);
void render_mistral_v3_tekken(const ChatScene& scene, ChatWriter& writer);
void render_mistral_v7(const ChatScene& scene, ChatWriter& writer);
void render_plain(const ChatScene& scene, ChatWriter& writer);

}  // namespace strata
