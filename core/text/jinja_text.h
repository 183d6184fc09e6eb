#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace strata {

// Internal to core/text: enough of Jinja to recognise a template, not to run it. Not installed.

/// The template without what does not change its meaning: white space and dashes of the code, the
/// kind of quotes, message.role for message['role'], lines broken inside strings.
std::string canonical_jinja(std::string_view jinja);

/// The system message that a ChatML template writes where a conversation has none: the text that it
/// spells between "<|im_start|>system\n" and "<|im_end|>". Empty: it writes none. None: it spells
/// more than one, or in a way that is not understood.
std::optional<std::string> default_system_message(std::string_view canonical);

}  // namespace strata
