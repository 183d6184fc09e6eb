#include "launch/runtime_options.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string_view>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::string_view kPrefix = "--strata.";

[[noreturn]] void refuse(std::string_view argument, std::string_view expected) {
  throw UsageError(fmt::format("{}: expected {}", argument, expected));
}

template <typename Number>
Number number(std::string_view argument, std::string_view value, std::string_view expected) {
  Number result{};
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, result);
  if (error != std::errc{} || stop != end) refuse(argument, expected);
  return result;
}

void set_bind(RuntimeOptions& options, std::string_view argument, std::string_view value) {
  if (value == "auto") {
    options.bind = BindMode::kAuto;
  } else if (value == "keep") {
    options.bind = BindMode::kKeep;
  } else {
    refuse(argument, "auto or keep");
  }
}

void set_threads(RuntimeOptions& options, std::string_view argument, std::string_view value) {
  constexpr std::string_view kExpected = "a number of threads from 1 to 4096";
  options.threads = number<int>(argument, value, kExpected);
  if (options.threads < 1 || options.threads > 4096) refuse(argument, kExpected);
}

void set_timeout(RuntimeOptions& options, std::string_view argument, std::string_view value) {
  constexpr std::string_view kExpected = "seconds from 0.1 to 1000000";
  const auto seconds = number<double>(argument, value, kExpected);
  if (!(seconds >= 0.1 && seconds <= 1e6)) refuse(argument, kExpected);
  options.timeout = std::chrono::milliseconds(std::llround(seconds * 1000));
}

void set_collectives(RuntimeOptions& options, std::string_view argument, std::string_view value) {
  if (value == "auto") {
    options.collectives = MpiRoute::kAuto;
  } else if (value == "shared") {
    options.collectives = MpiRoute::kShared;
  } else if (value == "messages") {
    options.collectives = MpiRoute::kMessages;
  } else {
    refuse(argument, "auto, shared or messages");
  }
}

void set(RuntimeOptions& options, std::string_view argument) {
  const std::string_view pair = argument.substr(kPrefix.size());
  const std::size_t equals = pair.find('=');
  const std::string_view key = pair.substr(0, equals);
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1);
  if (key == "bind") return set_bind(options, argument, value);
  if (key == "threads") return set_threads(options, argument, value);
  if (key == "timeout") return set_timeout(options, argument, value);
  if (key == "collectives") return set_collectives(options, argument, value);
  refuse(argument, "--strata.bind=, --strata.threads=, --strata.timeout= or --strata.collectives=");
}

}  // namespace

RuntimeOptions take_runtime_options(int& argc, char** argv, const RuntimeOptions& defaults) {
  RuntimeOptions options = defaults;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (i > 0 && argument.starts_with(kPrefix)) {
      set(options, argument);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  argv[argc] = nullptr;
  return options;
}

}  // namespace strata
