#include "parallel/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace strata {

// Without FUTEX_PRIVATE_FLAG: the word may be shared between processes at different addresses.

void sleep_while(const std::uint32_t& word, std::uint32_t expected,
                 std::chrono::nanoseconds timeout) noexcept {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const timespec limit = {timeout.count() / kSecond, timeout.count() % kSecond};
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &limit, nullptr, 0);
}

void wake_all(const std::uint32_t& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace strata
