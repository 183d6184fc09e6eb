#pragma once

// Internal to what reads models in place. Not installed.

#include "parallel/parameter_values.h"
#include "swap/file_reader.h"

namespace strata {

/// Whether values that a file holds in `stored` can be read as `kept`: other floating-point dtypes
/// are converted, groups have to be the same.
bool is_kept_as(Dtype stored, Dtype kept);

/// Reads target.numel() values of `stored` from `offset` on into host memory, converted to the
/// target's dtype. @pre is_kept_as(stored, target.dtype()); the memory is valid until the read ends
FileReader::Range stored_range(int file, std::uint64_t offset, Dtype stored, TensorView target);

}  // namespace strata
