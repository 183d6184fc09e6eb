#pragma once

#include "core/device.h"
#include "core/log.h"
#include "parallel/communicator.h"

namespace strata {

/// What trainer, generator and loaders are given: where to compute, with whom, and where to speak.
/// By reference: the Runtime owns all of it and outlives them.
struct Context {
  Device& device;
  Communicator& communicator;
  Log& log;
};

}  // namespace strata
