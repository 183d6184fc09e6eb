#include "launch/stop_signals.h"

#include <signal.h>

#include <atomic>
#include <cerrno>

#include "core/error.h"

namespace strata {
namespace {

// A handler can reach nothing else.
std::atomic<bool> stop_requested = false;
std::atomic<bool> end_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a handler must not take a lock");

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};

void on_signal(int signal) {
  const int saved = errno;
  stop_requested.store(true);
  if (signal != SIGUSR1 && end_requested.exchange(true)) {
    ::signal(signal, SIG_DFL);
    raise(signal);  // takes effect when the handler returns
  }
  errno = saved;
}

void set_handler(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int signal : kSignals) {
    expects(sigaction(signal, &action, nullptr) == 0, "a signal handler could not be installed");
  }
}

}  // namespace

StopSignals::StopSignals() {
  stop_requested.store(false);
  end_requested.store(false);
  set_handler(on_signal);
}

StopSignals::~StopSignals() {
  for (const int signal : kSignals) ::signal(signal, SIG_DFL);
}

bool StopSignals::requested() const noexcept { return stop_requested.load(); }

}  // namespace strata
