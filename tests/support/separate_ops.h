#pragma once

#include <memory>

#include "core/ops.h"

namespace strata::test {

class SeparateDevice;

/// `real` on the bytes behind the device's addresses. Both outlive it.
std::unique_ptr<Ops> make_separate_ops(Ops& real, const SeparateDevice& device);

}  // namespace strata::test
