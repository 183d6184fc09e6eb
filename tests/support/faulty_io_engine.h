#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "core/error.h"
#include "swap/io_engine.h"

namespace strata::test {

/// Passes submissions on to a real engine, except that the n-th request fails. The event of its
/// submission throws IoError; of the failing request a write has transferred nothing, a read has
/// filled its memory with junk. Thread-safe.
class FaultyIoEngine final : public IoEngine {
 public:
  struct Fault {
    std::int64_t request = 0;  ///< counted from 0 over all submissions
    int system_error = EIO;    ///< EIO, ENOSPC, ...; 0: the transfer stays short
  };

  FaultyIoEngine(IoEngine& real, Fault fault) : real_(real), fault_(fault) {}

  std::string name() const override { return "faulty"; }
  IoFile open_file(int descriptor, std::string path) override {
    return real_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { real_.register_memory(memory); }
  IoCounters counters() const override { return real_.counters(); }

  Event submit(std::span<const IoRequest> requests) override {
    for (const IoRequest& request : requests) {
      if (count_++ == fault_.request) return fail(request);
    }
    return real_.submit(requests);
  }

 private:
  Event fail(const IoRequest& request) const {
    if (request.kind == IoRequest::Kind::kRead) {
      for (std::byte& byte : request.memory) byte = std::byte{0xa5};
    }
    const HostEvent event;
    event.fail(std::make_exception_ptr(
        IoError("an injected fault", "(faulty)", request.offset, fault_.system_error)));
    return event.event();
  }

  IoEngine& real_;
  const Fault fault_;
  std::atomic<std::int64_t> count_ = 0;
};

}  // namespace strata::test
