#pragma once

#include <cstdint>
#include <filesystem>

#include "checkpoint/pretrained_model.h"
#include "checkpoint/quantized_file.h"
#include "parallel/parameter_values.h"
#include "parallel/weight_storage.h"

namespace strata {

// Quantised weights are made once and kept, in CACHE/weights/KEY/weights.bin, a QuantizedFile whose
// source is the key.
//
// The key is a hash of what the weights are made of: name, size, time of the last change and header
// of each of the model's files, the dtypes, and the version of all this.

/// The bytes of the file that quantized_weights() makes.
/// @pre `storage.weights` is kQ8 or kQ4, as below
std::uint64_t quantized_weights_bytes(const Model& model, const WeightStorage& storage);

/// Where the parameters lie as `storage` keeps them: in a file of `cache`, which is made first if
/// it is not there, or not whole. Blocks; reads the model once, on all cores that this process may
/// use, and needs about 10 MiB for each.
///
/// Processes and threads that want the same weights at the same time share one that makes them; the
/// others wait. Of the ranks of a node, let one go first if only one shows its progress. As long as
/// the locator lives, `strata clean` leaves the file alone.
/// @pre `source` was loaded from a directory
/// @throws FormatError if the model has a value that is not finite, or the entry is of another
/// version; IoError if `cache` cannot be used or has no room, known before the work
ParameterLocator quantized_weights(const PretrainedModel& source, const WeightStorage& storage,
                                   const std::filesystem::path& cache,
                                   const QuantizingProgress& progress = {});

}  // namespace strata
