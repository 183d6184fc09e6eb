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
  ASSERT_EQ(fixture.at("schedules").size(), 7u);
  for (const nlohmann::json& item : fixture.at("schedules")) {
    Schedule schedule;
    schedule.kind = parse_schedule_kind(item.at("name").get<std::string>());
    schedule.learning_rate = 1.0;
    schedule.warmup_steps = item.at("warmup_steps");
    schedule.total_steps = item.at("total_steps");
    validate(schedule);
    std::int64_t updates_done = 0;
    for (const double want : item.at("multipliers").get<std::vector<double>>()) {
      EXPECT_NEAR(schedule.multiplier(updates_done), want, 1e-15)
          << item.at("name") << " after " << updates_done << " updates";
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
  for (const ScheduleKind kind : {ScheduleKind::kConstant, ScheduleKind::kConstantWithWarmup,
                                  ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    EXPECT_EQ(parse_schedule_kind(name(kind)), kind);
  }
  EXPECT_NE(message_of("cosin").find("did you mean \"cosine\"?"), std::string::npos);
  EXPECT_NE(message_of("Linear").find("did you mean \"linear\"?"), std::string::npos);
  EXPECT_NE(message_of("constant_with_warm_up").find("mean \"constant_with_warmup\""),
            std::string::npos);
  EXPECT_EQ(message_of("polynomial"),
            "there is no schedule \"polynomial\"; choose one of constant, constant_with_warmup, "
            "linear, cosine");
}

TEST(Schedule, RefusesWhatMakesNoSense) {
  EXPECT_THROW(validate({ScheduleKind::kLinear, 1e-3, 0, 0}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kCosine, 1e-3, -1, 10}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kConstant, -1e-3, 0, 0}), UsageError);
  EXPECT_THROW(validate({ScheduleKind::kConstant, 1e-3, 0, -1}), UsageError);
  EXPECT_NO_THROW(validate({ScheduleKind::kConstant, 1e-3, 0, 0}));
}

}  // namespace
}  // namespace strata
