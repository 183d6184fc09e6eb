#pragma once

#include <mutex>

#include "core/cpu/byte_kernels.h"
#include "core/cpu/row_product.h"
#include "core/cpu/scratch.h"
#include "core/tensor.h"

namespace strata::cpu {

/// Whether ByteProduct, where it is possible, is the faster way beside PanelProduct: for any number
/// of rows, and up to 32 where the CPU multiplies tiles of bf16 (AMX; not measured). Interleaved
/// weights have no other.
bool prefers_byte_product(const LinearProduct& product);

/// Linear layers with quantised weights, of any number of rows, in whole numbers: x is rounded to
/// bytes, each group of kGroupNumel with a step of its own, a hundred and twenty-seventh of its
/// largest magnitude. Of normally distributed x that loses 0.6 % of its deviation, as much as
/// weights lose in kQ8; products take half as many instructions as pairs of bf16 do. A row of y has
/// the same bits whatever the number of rows and whatever the others hold.
///
/// Uses OpenMP teams of omp_get_max_threads() threads. Thread-safe: products take turns. Scratch
/// memory belongs to the object: x as bytes.
class ByteProduct {
 public:
  /// Whether the product has quantised weights and computes in 16 bits, on a CPU with AVX-512 VNNI.
  /// Products in fp32 keep what they promise.
  static bool possible(const LinearProduct& product);

  /// What interleave() makes of w [n, k]: kQ8x32 or kQ4x32; w's own dtype where it is not kQ8 or
  /// kQ4, or n no multiple of 32.
  static Dtype interleaved(ConstTensorView w);
  /// Interleaves rows in place, so that products need not unpack them. They give the same bits.
  /// Blocks. @pre a CPU with AVX-512 VNNI; w.dtype() != interleaved(w)
  static void interleave(TensorView w);

  /// Blocks until y is written. rows, n or k may be 0. @pre possible(product)
  void run(const LinearProduct& product);

 private:
  ByteRows round_rows(const LinearProduct& product);

  std::mutex mutex_;
  Scratch values_, groups_;
};

}  // namespace strata::cpu
