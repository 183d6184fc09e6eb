#include "core/text/jinja_text.h"

namespace strata {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

bool is_white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// Copies the string that begins with the quote at `at`. @return where it ends
std::size_t copy_string(std::string_view jinja, std::size_t at, std::string& result) {
  const char quote = jinja[at];
  result += '\'';
  for (++at; at < jinja.size() && jinja[at] != quote; ++at) {
    if (jinja[at] == '\\' && at + 1 < jinja.size()) {
      result += {'\\', jinja[++at]};
    } else if (jinja[at] == '\n') {
      result += "\\n";
    } else {
      result += jinja[at];
    }
  }
  result += '\'';
  return at + 1;
}

/// The text that the inside of a string spells.
std::optional<std::string> unescaped(std::string_view inside) {
  std::string text;
  for (std::size_t i = 0; i < inside.size(); ++i) {
    if (inside[i] != '\\') {
      text += inside[i];
      continue;
    }
    const char escaped = ++i < inside.size() ? inside[i] : '\0';
    if (escaped == 'n') {
      text += '\n';
    } else if (escaped == '\\' || escaped == '\'' || escaped == '"') {
      text += escaped;
    } else {
      return std::nullopt;
    }
  }
  return text;
}

}  // namespace

std::string canonical_jinja(std::string_view jinja) {
  std::string result;
  bool code = false;
  for (std::size_t at = 0; at < jinja.size();) {
    const std::string_view rest = jinja.substr(at);
    if (!code) {
      code = rest.starts_with("{{") || rest.starts_with("{%");
      result += rest.substr(0, code ? 2 : 1);
      at += code ? 2 : 1;
      if (code && at < jinja.size() && jinja[at] == '-') ++at;
    } else if (rest.front() == '\'' || rest.front() == '"') {
      at = copy_string(jinja, at, result);
    } else if (rest.starts_with("-}}") || rest.starts_with("-%}")) {
      ++at;
    } else if (rest.starts_with("}}") || rest.starts_with("%}")) {
      code = false;
      result += rest.substr(0, 2);
      at += 2;
    } else {
      if (!is_white(rest.front())) result += rest.front();
      ++at;
    }
  }
  replace_all(result, "message.role", "message['role']");
  replace_all(result, "message.content", "message['content']");
  return result;
}

std::optional<std::string> default_system_message(std::string_view canonical) {
  constexpr std::string_view kBegin = "<|im_start|>system\\n";
  std::string_view found;
  for (std::size_t at = 0; (at = canonical.find(kBegin, at)) != std::string_view::npos;) {
    at += kBegin.size();
    const std::string_view inside = canonical.substr(at, canonical.find("<|im_end|>", at) - at);
    if (inside.empty() || inside.front() == '\'') continue;  // a message of the conversation
    for (std::size_t i = 0; i < inside.size(); ++i) {
      if (inside[i] == '\'') return std::nullopt;  // pieced together
      if (inside[i] == '\\') ++i;
    }
    if (!found.empty() && found != inside) return std::nullopt;
    found = inside;
  }
  return unescaped(found);
}

}  // namespace strata
