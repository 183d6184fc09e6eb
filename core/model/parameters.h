#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/tensor.h"

namespace strata {

/// What a parameter is for: decides how it starts and whether weight decay applies (matrices and
/// tables: yes; norms and biases: no).
enum class ParameterRole : std::uint8_t {
  kTable,               ///< rows looked up by token or position
  kMatrix,              ///< weight of a product, [out, in]
  kResidualProjection,  ///< the matrix whose product is added to the residual stream: o, down
  kNormWeight,
  kBias,
};

/// One parameter in Strata's own naming. Weights of products are [out, in], row-major.
///
///     embedding.tokens.weight [V, C]     embedding.positions.weight [positions, C]
///     layers.{i}.attention_norm.{weight,bias} [C]     layers.{i}.mlp_norm.{weight,bias} [C]
///     layers.{i}.attention.{q,k,v,o}.{weight,bias}     layers.{i}.mlp.{gate,up,down}.{weight,bias}
///     head.norm.{weight,bias} [C]     head.weight [V, C], untied models only
struct Parameter {
  std::string name;
  Shape shape;
  ParameterRole role = ParameterRole::kMatrix;
  int block = 0;  ///< 0 embedding, 1 .. layers the layers, layers + 1 the head

  bool decays() const noexcept {
    return role != ParameterRole::kNormWeight && role != ParameterRole::kBias;
  }
};

/// All parameters of a model in the order of its blocks; within a block in the order of use.
std::vector<Parameter> parameters(const ModelConfig& config);

/// Number of elements of all of them.
std::int64_t parameter_count(const ModelConfig& config);

}  // namespace strata
