#include "optimizer/loss_scale.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace strata {
namespace {

TEST(LossScaler, FollowsDeepSpeed) {
  std::ifstream file(STRATA_SOURCE_DIR "/tests/golden/loss_scale_fixture.json");
  const nlohmann::json fixture = nlohmann::json::parse(file);
  int raised = 0;
  int changes = 0;
  for (const nlohmann::json& item : fixture.at("cases")) {
    LossScaler scaler({.initial_scale_power = item.at("initial_scale_power"),
                       .window = item.at("loss_scale_window"),
                       .hysteresis = item.at("hysteresis"),
                       .consecutive_hysteresis = item.at("consecutive_hysteresis"),
                       .min_loss_scale = item.at("min_loss_scale")});
    const auto overflows = item.at("overflows").get<std::vector<bool>>();
    const auto scales = item.at("scales").get<std::vector<double>>();
    for (std::size_t i = 0; i < scales.size(); ++i) {
      const double before = scaler.scale();
      scaler.finish_step(overflows[i]);
      ASSERT_EQ(scaler.scale(), scales[i]) << "after step " << i;
      changes += scaler.scale() != before ? 1 : 0;
    }
    if (!item.at("raises")) continue;
    ASSERT_EQ(overflows.size(), scales.size() + 1);
    EXPECT_THROW(scaler.finish_step(overflows.back()), Error);
    ++raised;
  }
  EXPECT_GT(raised, 0);
  EXPECT_GT(changes, 50);
}

TEST(LossScaler, KeepsAFixedScale) {
  LossScaler scaler({.loss_scale = 128, .window = 1});
  for (const bool overflowed : {false, true, true, true, false, false}) {
    EXPECT_EQ(scaler.scale(), 128);
    scaler.finish_step(overflowed);
  }
  EXPECT_EQ(scaler.scale(), 128);
}

TEST(LossScaler, RefusesOptionsByNameAndValue) {
  const auto refusal = [](const LossScaleOptions& options) -> std::string {
    try {
      LossScaler{options};
    } catch (const UsageError& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_NE(refusal({.loss_scale = -1}).find("--loss_scale: -1"), std::string::npos);
  EXPECT_NE(refusal({.initial_scale_power = 101}).find("--initial_scale_power: 101"),
            std::string::npos);
  EXPECT_NE(refusal({.window = 0}).find("--loss_scale_window: 0"), std::string::npos);
  EXPECT_NE(refusal({.hysteresis = 0}).find("--hysteresis: 0"), std::string::npos);
  EXPECT_NE(refusal({.min_loss_scale = 0}).find("--min_loss_scale: 0"), std::string::npos);
  EXPECT_NE(refusal({.initial_scale_power = 3, .min_loss_scale = 16}).find("--min_loss_scale: 16"),
            std::string::npos)
      << "a scale would rise to its minimum when gradients overflow";
}

}  // namespace
}  // namespace strata
