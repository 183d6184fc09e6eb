#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"

namespace strata::test {

/// What a command's flags make of a command line.
template <typename Options>
Options parse(void (*add)(CLI::App&, Options&), std::vector<std::string> arguments) {
  CLI::App app;
  Options options;
  add(app, options);
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return options;
}

/// The message of the UsageError that `body` must throw.
template <typename Body>
std::string refusal(Body body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "nothing was refused";
}

#define EXPECT_REFUSED(expression, part)                                                \
  EXPECT_NE(::strata::test::refusal([&] { static_cast<void>(expression); }).find(part), \
            std::string::npos)                                                          \
      << ::strata::test::refusal([&] { static_cast<void>(expression); })

}  // namespace strata::test
