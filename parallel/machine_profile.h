#pragma once

#include <filesystem>
#include <string>

#include "core/dtype.h"

namespace strata {

/// What a machine was measured to do with all of its cores, apart from its drives. Rates are per
/// second; 0 means that nobody measured it.
struct MachineProfile {
  double products_bf16 = 0;  ///< floating-point operations of large matrix products
  double products_fp32 = 0;
  double products_int8 = 0;  ///< forward, of bf16 with quantised weights
  double products_int4 = 0;
  double blocks_bf16 = 0;  ///< the same operations inside whole blocks, forward and backward
  double blocks_fp32 = 0;
  double updates = 0;  ///< parameters through AdamW, `exact` sections and bf16 gradients in DRAM
  double memory = 0;   ///< bytes that the better of two simple loops reads and writes
  double memory_read = 0;  ///< bytes that a loop reads which writes nothing
  double gather = 0;       ///< bytes that all-gathers bring to the ranks of the node, together
  double reduce = 0;       ///< bytes of fp32 gradient that leave them in reduce-scatters, together

  /// fp16 is multiplied in fp32, on CPUs, but for quantised weights.
  double products(Dtype compute) const {
    return compute == Dtype::kBf16 ? products_bf16 : products_fp32;
  }
  double products(Dtype compute, Dtype weights) const {
    if (!is_quantized(weights) || compute == Dtype::kF32) return products(compute);
    return weights == Dtype::kQ8 ? products_int8 : products_int4;
  }
  double blocks(Dtype compute) const { return compute == Dtype::kBf16 ? blocks_bf16 : blocks_fp32; }
};

struct LoadedMachineProfile {
  MachineProfile profile;
  std::string warning;  ///< why the file could not be used; empty also when there is none yet
};

/// machine.json beside the profiles of drives. @throws UsageError as device_profile_path()
std::filesystem::path machine_profile_path();
/// Never fails: a file that is missing or damaged holds nothing.
LoadedMachineProfile load_machine_profile(const std::filesystem::path& file);
/// Replaces the figures that `measured` has and keeps the others. @throws IoError naming the file
void save_machine_profile(const std::filesystem::path& file, const MachineProfile& measured);

}  // namespace strata
