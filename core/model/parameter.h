#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace strata {

/// How a parameter starts. Counter-based: the value of an element depends on seed, name and
/// position only.
struct Initializer {
  enum class Kind : std::uint8_t { kConstant, kNormal };
  Kind kind = Kind::kConstant;
  float value = 0.0f;  ///< the constant, or the standard deviation around 0

  static Initializer constant(float value) { return {Kind::kConstant, value}; }
  static Initializer normal(float deviation) { return {Kind::kNormal, deviation}; }
};

/// What a block declares about one of its parameters. The block owns it; its address is its
/// identity.
struct ParameterSpec {
  std::string name;  ///< within the model, "layers.3.attention.q.weight"
  Shape shape;       ///< row-major; products read weights as [out, in]
  Initializer initializer;
  bool decay = true;       ///< weight decay applies
  bool frozen = false;     ///< gets no gradient and no update
  bool row_tiled = false;  ///< a table whose gradient leaves in tiles of rows, never as a whole
  int block = -1;          ///< index of the owning block in its model
};

/// A parameter as a block's mathematics names it. Null: absent (a bias that a model does not have).
using Parameter = const ParameterSpec*;

/// Rows per tile of a row-tiled parameter's gradient and of the logits: a constant, so that no sum
/// depends on a budget.
inline constexpr std::int64_t kRowTile = 4096;

}  // namespace strata
