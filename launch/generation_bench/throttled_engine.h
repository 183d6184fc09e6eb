#pragma once

#include <memory>

#include "swap/io_engine.h"

namespace strata {

/// An engine on a slower drive: reads take at least as long as a drive with this bandwidth would
/// need for them, one after the other. Writes are not slowed. To measure one kind of drive on
/// another; results are to be labelled so.
/// @param bytes_per_second positive
std::unique_ptr<IoEngine> make_throttled_engine(std::unique_ptr<IoEngine> real,
                                                double bytes_per_second);

}  // namespace strata
