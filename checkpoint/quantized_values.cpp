#include "checkpoint/quantized_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/group_quantization.h"
#include "core/units.h"

namespace strata {
namespace {

/// Replaces whole groups by what is left of them.
void round_to_groups(Parameter parameter, Dtype dtype, std::span<float> values) {
  std::vector<std::byte> groups(storage_bytes(dtype, static_cast<std::int64_t>(values.size())));
  try {
    quantize(values, dtype, groups.data());
  } catch (const Error& error) {
    throw FormatError(fmt::format("{}: {}", parameter->name, error.what()));
  }
  dequantize(groups.data(), dtype, values);
}

}  // namespace

ParameterSource quantized_values(ParameterSource source, const WeightStorage& storage) {
  return [source = std::move(source), storage](Parameter parameter, std::int64_t begin,
                                               std::span<float> values) {
    const Dtype dtype = storage.of(*parameter);
    if (!is_quantized(dtype)) return source(parameter, begin, values);
    const auto count = static_cast<std::int64_t>(values.size());
    const std::int64_t first = round_down(begin, kGroupNumel);
    const std::int64_t last = round_up(begin + count, kGroupNumel);
    std::vector<float> whole(static_cast<std::size_t>(last - first));
    source(parameter, first, whole);
    round_to_groups(parameter, dtype, whole);
    std::copy_n(whole.begin() + (begin - first), count, values.begin());
  };
}

}  // namespace strata
