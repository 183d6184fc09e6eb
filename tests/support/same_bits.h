#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "tests/support/tiny_training.h"

namespace strata::test {

/// What must not depend on where the state rests.
inline void expect_same_bits(const TrainingResult& got, const TrainingResult& want) {
  EXPECT_EQ(got.losses, want.losses);
  EXPECT_EQ(got.norms, want.norms);
  EXPECT_EQ(got.parameters, want.parameters);
}

/// Trains on budgets from a `parts`-th of all memory up to all of it: more than `least` of them
/// must work and give the bits of `want`, the others must say what --dram would.
inline void expect_same_bits_in_every_budget(const Model& model, TrainerOptions options, int steps,
                                             const TrainingResult& want, std::size_t parts,
                                             int least) {
  const std::size_t all = want.plan.dram() + (8 << 20);
  int worked = 0;
  for (std::size_t budget = all / parts; budget <= all; budget += all / parts) {
    options.placement.dram_bytes = budget;
    try {
      const TrainingResult got = train(model, options, steps);
      expect_same_bits(got, want);
      EXPECT_LE(got.plan.dram(), budget);
      ++worked;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find("--dram"), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(worked, least);
}

}  // namespace strata::test
