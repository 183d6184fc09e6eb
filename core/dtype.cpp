#include "core/dtype.h"

namespace strata {

std::string_view name(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kF64:
      return "fp64";
    case Dtype::kF32:
      return "fp32";
    case Dtype::kF16:
      return "fp16";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kI64:
      return "int64";
    case Dtype::kI32:
      return "int32";
    case Dtype::kI16:
      return "int16";
    case Dtype::kU8:
      return "uint8";
    case Dtype::kBool:
      return "bool";
    case Dtype::kQ8:
      return "q8";
    case Dtype::kQ4:
      return "q4";
    case Dtype::kQ8x32:
      return "q8x32";
    case Dtype::kQ4x32:
      return "q4x32";
  }
  return "unknown";
}

}  // namespace strata
