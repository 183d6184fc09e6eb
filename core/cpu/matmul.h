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
  Dtype compute = Dtype::kF32;  ///< of a, b and bias: fp32 or bf16; sums are fp32 either way
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

/// The layout CpuOps uses for a product with `m` rows on this CPU.
///
/// Plain, unless the CPU has AMX and m >= 1024. Measured on two Zen 4 cores (AVX-512 BF16,
/// oneDNN 2.6.3, m = 256..2048, n and k = 512..8192): plain reaches 0.93..1.00 of the better one,
/// packed 0.65..1.00. On AMX plain rearranges b again for every few hundred rows of a, so packing
/// pays once m is large; that border is reasoned, not measured: `matmul_bench` prints both on the
/// machine at hand.
OperandLayout preferred_layout(Dtype compute, std::int64_t m);

/// Matrix products by oneDNN, with prepared kernels kept for the shapes seen last. Where this CPU
/// has no bf16 kernel, bf16 operands are converted and multiplied in fp32.
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

  std::size_t scratch_bytes() const;  ///< held right now

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace strata::cpu
