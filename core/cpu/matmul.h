#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/dtype.h"

namespace strata::cpu {

/// A row-major matrix in memory, or its transpose: element (i, j) of the operand lies at [i, j], or
/// at [j, i] when `transposed`. Rows are dense.
struct MatrixOperand {
  const void* data = nullptr;
  bool transposed = false;
};

/// c[m, n] = a[m, k] b[k, n] + bias[n], or c += a b with `accumulate` (fp32 c, no bias).
struct Product {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  Dtype compute = Dtype::kF32;  ///< of a, b and bias: fp32, bf16 or fp16; sums are fp32 always
  Dtype output = Dtype::kF32;   ///< of c: compute or fp32
  bool accumulate = false;
  MatrixOperand a;
  MatrixOperand b;
  const void* bias = nullptr;  ///< [n] or nullptr
  void* c = nullptr;
};

/// How b is handed to the product: as it lies, or rearranged first into the layout the product
/// likes best (counted into its time).
enum class OperandLayout : std::uint8_t { kPlain, kPacked };

/// Whether oneDNN multiplies tiles of bf16 on this CPU (AMX).
bool multiplies_tiles();

/// The layout CpuOps uses for a product with `m` rows on this CPU. Rearranging costs time once and
/// saves some for every few hundred rows of a, so it pays when m is large and b cheap to rearrange
/// (as it lies; its transpose takes six times as long):
///   b as it lies   packed from m = 768
///   b transposed   plain; on a CPU with AMX packed from m = 1024
/// Measured on two Zen 4 cores (AVX-512 BF16, oneDNN 2.6.3; 256..2048 tokens, 512..8192 features):
/// 0.93 of the better layout or more. The AMX line is reasoned, not measured; strata_ops_bench
/// prints both layouts and the choice for the machine at hand.
OperandLayout preferred_layout(bool b_transposed, std::int64_t m);

/// Matrix products by oneDNN, with prepared kernels kept for the shapes seen last. fp16 operands,
/// and bf16 ones where this CPU has no bf16 kernel, are converted and multiplied in fp32.
///
/// Uses OpenMP teams of omp_get_max_threads() threads. Thread-safe: products take turns. Scratch
/// memory belongs to the object, grows to what the largest product so far needed, and is reused.
class Matmul {
 public:
  Matmul();
  ~Matmul();

  /// Blocks until c is written. m, n or k may be 0. @throws Error when oneDNN refuses the product
  void run(const Product& product);
  void run(const Product& product, OperandLayout layout);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace strata::cpu
