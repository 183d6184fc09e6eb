#include "swap/io_engine.h"

#include "core/error.h"

namespace strata {

std::unique_ptr<IoEngine> make_io_engine(const IoEngineOptions& options) {
  switch (options.kind) {
    case IoEngineOptions::Kind::kUring:
      return make_uring_io_engine(options);
    case IoEngineOptions::Kind::kThreads:
      return make_thread_io_engine(options);
    case IoEngineOptions::Kind::kAuto:
      break;
  }
  try {
    return make_uring_io_engine(options);
  } catch (const Error& reason) {
    return make_thread_io_engine(options, reason.what());
  }
}

}  // namespace strata
