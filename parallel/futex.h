#pragma once

#include <chrono>
#include <cstdint>

namespace strata {

/// Sleeps until wake_all(word) is called in any process that maps it, for at most `timeout`.
/// Returns at once when the word no longer holds `expected`, and may return early for no reason:
/// check again.
void sleep_while(const std::uint32_t& word, std::uint32_t expected,
                 std::chrono::nanoseconds timeout) noexcept;
void wake_all(const std::uint32_t& word) noexcept;

}  // namespace strata
