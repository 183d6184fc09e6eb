#pragma once

#include <cctype>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace strata::test {

/// An element of a document that is well-formed, with the text directly inside it, unescaped.
struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;
  std::vector<XmlElement> children;

  std::string attribute(const std::string& key) const {
    const auto found = attributes.find(key);
    return found == attributes.end() ? "" : found->second;
  }
  /// Every element below this one, in the order of the document.
  std::vector<const XmlElement*> all() const {
    std::vector<const XmlElement*> found;
    for (const XmlElement& child : children) {
      found.push_back(&child);
      for (const XmlElement* below : child.all()) found.push_back(below);
    }
    return found;
  }
  std::vector<const XmlElement*> all(std::string_view element) const {
    std::vector<const XmlElement*> found;
    for (const XmlElement* below : all()) {
      if (below->name == element) found.push_back(below);
    }
    return found;
  }
};

/// Parses elements, quoted attributes, text and the five escapes, which is all that this project
/// writes; anything else is a mistake. A <!DOCTYPE html> may come first.
class XmlParser {
 public:
  explicit XmlParser(std::string_view text) : rest_(text) {}

  XmlElement document() {
    skip("<!DOCTYPE html>");
    skip_space();
    XmlElement root = element();
    skip_space();
    if (!rest_.empty()) fail("something behind the root element");
    return root;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(what + " at: " + std::string(rest_.substr(0, 80)));
  }
  bool skip(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }
  void expect(std::string_view expected) {
    if (!skip(expected)) fail("expected " + std::string(expected));
  }
  void skip_space() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())) != 0) {
      rest_.remove_prefix(1);
    }
  }
  std::string name() {
    std::size_t size = 0;
    while (size < rest_.size() &&
           (std::isalnum(static_cast<unsigned char>(rest_[size])) != 0 || rest_[size] == '-')) {
      ++size;
    }
    if (size == 0) fail("expected a name");
    const std::string found(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return found;
  }
  /// Up to `end`, which stays.
  std::string text_until(char end) {
    static constexpr std::pair<std::string_view, char> kEscapes[] = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}};
    std::string found;
    while (!rest_.empty() && rest_.front() != end) {
      const char c = rest_.front();
      if (c == '<' || (c == '>' && end != '<')) fail("markup inside text");
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 && c != '\n' && c != '\t') fail("a control character");
      bool escaped = false;
      for (const auto& [escape, meaning] : kEscapes) {
        if (escaped || !skip(escape)) continue;
        found.push_back(meaning);
        escaped = true;
      }
      if (escaped) continue;
      if (c == '&') fail("an unknown escape");
      found.push_back(c);
      rest_.remove_prefix(1);
    }
    return found;
  }
  XmlElement element() {
    XmlElement found;
    expect("<");
    found.name = name();
    for (skip_space(); !rest_.starts_with(">") && !rest_.starts_with("/>"); skip_space()) {
      const std::string key = name();
      expect("=\"");
      if (!found.attributes.emplace(key, text_until('"')).second) fail("an attribute twice");
      expect("\"");
    }
    if (skip("/>")) return found;
    expect(">");
    while (!skip("</")) {
      if (rest_.empty()) fail("<" + found.name + "> does not end");
      if (rest_.front() == '<') {
        found.children.push_back(element());
      } else {
        found.text += text_until('<');
      }
    }
    expect(found.name);
    expect(">");
    return found;
  }

  std::string_view rest_;
};

/// @throws std::runtime_error when it is not well-formed
inline XmlElement parse_xml(std::string_view text) { return XmlParser(text).document(); }

}  // namespace strata::test
