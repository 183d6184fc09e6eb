#include "core/text/regex.h"

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"
#include "core/text/ascii_words.h"

namespace strata {
namespace {

constexpr const char* kSpaces =
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
constexpr std::uint32_t kMatchLimit = 50'000'000;
constexpr std::uint32_t kHeapLimitKib = 64 << 10;
constexpr std::size_t kJitStackStart = 32 << 10;
constexpr std::size_t kJitStackMost = 8 << 20;

/// The pattern with \s and \S spelled out.
std::string with_spaces(std::string_view pattern) {
  std::string result;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        result += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      } else if (escaped == 'S' && !in_class) {
        result += fmt::format("[^{}]", kSpaces);
      } else {
        result += {c, escaped};
      }
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
    } else if (c == ']' && in_class) {
      in_class = false;
    }
    result += c;
  }
  return result;
}

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

std::string message_of(int error) {
  std::array<unsigned char, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

/// What one thread needs to match.
struct Matcher {
  MatchContext context{pcre2_match_context_create(nullptr)};
  JitStack stack{pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr)};
  MatchData data;

  explicit Matcher(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)) {
    if (!context || !stack || !data) throw Error("no memory is left for a regular expression");
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

}  // namespace

struct Regex::Implementation {
  Code code;
  // Checks its arguments less than pcre2_match, which counts for words of a few bytes.
  decltype(&pcre2_match) match = pcre2_match;
  AsciiMatch ascii = nullptr;
  std::mutex mutex;  // of idle
  std::vector<std::unique_ptr<Matcher>> idle;

  std::unique_ptr<Matcher> borrow() {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto matcher = std::move(idle.back());
        idle.pop_back();
        return matcher;
      }
    }
    return std::make_unique<Matcher>(code.get());
  }
  void give_back(std::unique_ptr<Matcher> matcher) {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(matcher));
  }
};

Regex::Regex(std::string_view pattern, const std::string& path)
    : implementation_(std::make_unique<Implementation>()) {
  const std::string text = with_spaces(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          nullptr));
  if (!code) {
    throw FormatError(fmt::format("{}: the regular expression {:.200} is not valid: {} at byte {}",
                                  path, pattern, message_of(error), offset));
  }
  // Without it matching is slower, not wrong.
  if (pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE) == 0) {
    implementation_->match = pcre2_jit_match;
  }
  implementation_->code = std::move(code);
  implementation_->ascii = ascii_match_of(pattern);
}

Regex Regex::literal(std::string_view text, const std::string& path) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = static_cast<unsigned char>(c) >= 0x80 || std::isalnum(c) != 0;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern, path);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text,
                           const std::function<void(TextSpan)>& found) const {
  std::unique_ptr<Matcher> matcher = implementation_->borrow();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const AsciiMatch ascii = implementation_->ascii;
  const auto match = implementation_->match;
  const std::uint32_t options = match == pcre2_jit_match ? 0 : PCRE2_NO_UTF_CHECK;
  std::size_t from = 0;
  while (from < text.size()) {
    if (const std::size_t end = ascii != nullptr ? ascii(text, from) : 0) {
      found({from, end});
      from = end;
      continue;
    }
    const int count = match(implementation_->code.get(), subject, text.size(), from, options,
                            matcher->data.get(), matcher->context.get());
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      throw Error(fmt::format("a regular expression gave up on a text of {} bytes: {}", text.size(),
                              message_of(count)));
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(matcher->data.get());
    if (bounds[0] == bounds[1]) {
      from = bounds[1] + 1;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xc0) == 0x80) ++from;
      continue;
    }
    from = bounds[1];
    found({bounds[0], bounds[1]});
  }
  implementation_->give_back(std::move(matcher));
}

std::string Regex::replace(std::string_view text, std::string_view content) const {
  std::string result;
  std::size_t done = 0;
  for_each_match(text, [&](TextSpan match) {
    result.append(text, done, match.begin - done);
    result += content;
    done = match.end;
  });
  result.append(text, done);
  return result;
}

}  // namespace strata
