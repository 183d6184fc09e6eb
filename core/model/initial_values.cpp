#include "core/model/initial_values.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace strata {
namespace {

constexpr std::int64_t kPiece = 1 << 14;  // elements a thread makes at a time, about 0.5 ms

}  // namespace

void initial_values(const ParameterSpec& parameter, std::uint64_t seed, std::int64_t first,
                    std::span<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  expects(first >= 0 && first + count <= parameter.shape.numel(), "a range outside the parameter");
  const float value = parameter.initializer.value;
  if (parameter.initializer.kind == Initializer::Kind::kConstant) {
    std::fill(values.begin(), values.end(), value);
    return;
  }
  const auto key = random_key(seed, parameter.name);
  const std::int64_t pieces = (count + kPiece - 1) / kPiece;
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = piece * kPiece;
    const std::int64_t end = std::min(count, begin + kPiece);
    fill_normal(
        key, static_cast<std::uint64_t>(first + begin), static_cast<double>(value),
        values.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  }
}

}  // namespace strata
