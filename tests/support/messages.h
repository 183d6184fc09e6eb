#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata::test {

/// `body` must throw an `E` whose message contains each of `parts`; the first part must be at its
/// start.
template <typename E, typename Body>
void expect_message(Body&& body, const std::vector<std::string>& parts) {
  try {
    body();
  } catch (const E& error) {
    const std::string message = error.what();
    if (!parts.empty()) {
      EXPECT_EQ(message.rfind(parts.front(), 0), 0u) << message;
    }
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << message;
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown; expected a message with \""
                << (parts.empty() ? "" : parts.back()) << "\"";
}

}  // namespace strata::test
