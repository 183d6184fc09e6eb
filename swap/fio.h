#pragma once

// Internal: runs fio as a yardstick. Not installed.

#include <cstdint>
#include <optional>
#include <string>

#include "swap/io_benchmark.h"

namespace strata {

/// Runs one fio job on the existing file `path` and waits for it. Nothing where fio is not
/// installed.
/// @throws Error with fio's words if it fails
std::optional<IoBandwidth> run_fio(const IoLoad& load, const std::string& path,
                                   std::uint64_t file_bytes, bool direct,
                                   const std::string& engine);

}  // namespace strata
