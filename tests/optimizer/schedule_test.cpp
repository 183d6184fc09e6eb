#include "optimizer/schedule.h"

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "tests/optimizer/sections.h"

namespace strata {
namespace {

std::string message_of(std::string_view text) {
  try {
    parse_schedule_kind(text);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(Schedule, MultipliesAsTransformersDoes) {
  const nlohmann::json fixture = test::read_fixture();
  ASSERT_EQ(fixture.at("schedules").size(), 9u);
  for (const nlohmann::json& item : fixture.at("schedules")) {
    Schedule schedule;
    schedule.kind = parse_schedule_kind(item.at("name").get<std::string>());
    schedule.learning_rate = 1.0;
    schedule.warmup_steps = item.at("warmup_steps");
    schedule.total_steps = item.at("total_steps");
    validate(schedule);
    std::int64_t updates_done = 0;
    for (const double want : item.at("multipliers").get<std::vector<double>>()) {
      EXPECT_NEAR(schedule.rate(updates_done), want, 1e-15)
          << item.at("name") << " after " << updates_done << " updates";
      ++updates_done;
    }
  }
}

TEST(Schedule, IsThatOfDeepSpeed) {
  const nlohmann::json fixture = test::read_fixture();
  ASSERT_EQ(fixture.at("deepspeed").size(), 9u);
  for (const nlohmann::json& item : fixture.at("deepspeed")) {
    const nlohmann::json& params = item.at("params");
    Schedule schedule;
    schedule.kind = parse_schedule_kind(item.at("name").get<std::string>());
    schedule.learning_rate = params.value("warmup_max_lr", item.at("learning_rate").get<double>());
    schedule.warmup_steps = params.at("warmup_num_steps");
    schedule.total_steps = params.value("total_num_steps", std::int64_t{0});
    schedule.warmup_start = params.value(
        "warmup_min_lr", params.value("warmup_min_ratio", 0.0) * schedule.learning_rate);
    schedule.cosine_end = params.value("cos_min_ratio", schedule.cosine_end);
    if (params.value("warmup_type", "log") == "linear") {
      schedule.warmup_shape = WarmupShape::kLinear;
    }
    validate(schedule);
    std::int64_t updates_done = 0;
    for (const double want : item.at("rates").get<std::vector<double>>()) {
      EXPECT_NEAR(schedule.rate(updates_done), want, 1e-15)
          << item.at("name") << " " << params << " after " << updates_done << " updates";
      ++updates_done;
    }
  }
}

TEST(Schedule, StartsAtZeroWithWarmUpAndScalesTheLearningRate) {
  const Schedule schedule{ScheduleKind::kLinear, 2e-3, 4, 12};
  EXPECT_EQ(schedule.at(0), 0.0f);
  EXPECT_FLOAT_EQ(schedule.at(1), 5e-4f);
  EXPECT_FLOAT_EQ(schedule.at(4), 2e-3f);
  EXPECT_EQ(schedule.at(12), 0.0f);
  EXPECT_EQ(schedule.at(1000), 0.0f);
}

TEST(Schedule, NamesAreReadBackAndATypoIsAnsweredWithTheNearestOne) {
  EXPECT_EQ(schedule_kinds().size(), 8u);
  for (const auto& [text, kind] : schedule_kinds()) {
    EXPECT_EQ(parse_schedule_kind(text), kind);
    EXPECT_EQ(name(kind), text);
  }
  EXPECT_NE(message_of("WarmUpLR").find("did you mean \"WarmupLR\"?"), std::string::npos);
  EXPECT_NE(message_of("cosin").find("did you mean \"cosine\"?"), std::string::npos);
  EXPECT_NE(message_of("Linear").find("did you mean \"linear\"?"), std::string::npos);
  EXPECT_NE(message_of("constant_with_warm_up").find("mean \"constant_with_warmup\""),
            std::string::npos);
  EXPECT_EQ(message_of("polynomial"),
            "there is no schedule \"polynomial\"; choose one of constant, constant_with_warmup, "
            "linear, cosine, inverse_sqrt, WarmupLR, WarmupDecayLR, WarmupCosineLR");
}

TEST(Schedule, RefusesWhatMakesNoSense) {
  EXPECT_THROW(validate({ScheduleKind::kLinear, 1e-3, 0, 0}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kCosine, 1e-3, -1, 10}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kConstant, -1e-3, 0, 0}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kConstant, 1e-3, 0, -1}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kWarmupDecayLr, 1e-3, 5, 0}), UsageError);
  Schedule schedule{ScheduleKind::kWarmupCosineLr, 1e-3, 5, 10};
  EXPECT_NO_THROW(validate(schedule));
  schedule.cosine_end = 1.5;
  EXPECT_THROW(validate(schedule), UsageError);
  schedule = {ScheduleKind::kWarmupLr, 1e-3, 5, 0};
  EXPECT_NO_THROW(validate(schedule));
  schedule.warmup_start = -1e-3;
  EXPECT_THROW(validate(schedule), UsageError);
  EXPECT_NO_THROW(validate({ScheduleKind::kConstant, 1e-3, 0, 0}));
}

}  // namespace
}  // namespace strata
