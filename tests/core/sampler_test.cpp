#include "core/model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

SamplingOptions sampled() { return {.greedy = false}; }

std::vector<float> uneven_logits() {
  std::vector<float> logits;
  for (int id = 0; id < 50; ++id) logits.push_back(std::sin(static_cast<float>(id * 7)) * 2);
  return logits;
}

TEST(Sampler, LeavesWhatTransformersLeaves) {
  std::ifstream file(STRATA_SOURCE_DIR "/tests/golden/sampler_fixture.json");
  const nlohmann::json rows = nlohmann::json::parse(file);
  ASSERT_EQ(rows.size(), 10u);
  for (const nlohmann::json& row : rows) {
    SCOPED_TRACE(row["options"].dump());
    SamplingOptions options{.greedy = false, .log_probability = true};
    const nlohmann::json& given = row["options"];
    options.repetition_penalty = given.value("repetition_penalty", 1.0f);
    options.temperature = given.value("temperature", 1.0f);
    options.top_k = given.value("top_k", std::int64_t{0});
    options.top_p = given.value("top_p", 1.0f);
    options.min_p = given.value("min_p", 0.0f);
    const auto logits = row["logits"].get<std::vector<float>>();
    const auto text = row["text"].get<std::vector<std::int32_t>>();
    Sampler sampler(options, {});
    std::vector<float> own = logits;
    const std::span<const TokenProbability> left = sampler.distribution(own, text);
    const auto want = row["probabilities"].get<std::vector<float>>();
    ASSERT_EQ(left.size(), want.size());
    std::set<std::int32_t> ids, want_ids = row["ids"];
    for (std::size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(left[i].probability, want[i], 1e-6f);
      ids.insert(left[i].id);
    }
    EXPECT_EQ(ids, want_ids);
    EXPECT_EQ(left.front().id, row["ids"][0]);

    std::map<std::int32_t, float> log_probabilities;
    for (std::size_t i = 0; i < want.size(); ++i) {
      log_probabilities[row["ids"][i]] = row["log_probabilities"][i];
    }
    for (std::uint64_t position = 0; position < 20; ++position) {
      own = logits;
      const SampledToken token = sampler.next(own, text, 0, position);
      ASSERT_TRUE(log_probabilities.contains(token.id));
      EXPECT_NEAR(token.log_probability, log_probabilities[token.id], 1e-5f);
    }
  }
}

TEST(Sampler, ChoosesAsOftenAsTheProbabilitiesSay) {
  Sampler sampler(sampled(), {});
  const std::vector<float> logits = uneven_logits();
  std::vector<float> own = logits;
  std::map<std::int32_t, double> want, got;
  for (const TokenProbability& token : sampler.distribution(own, {})) {
    want[token.id] = static_cast<double>(token.probability);
  }
  constexpr int kDraws = 20000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    own = logits;
    got[sampler.next(own, {}, i % 100, i / 100).id] += 1.0 / kDraws;
  }
  for (const auto& [id, probability] : want) {
    // Five standard deviations of a count.
    EXPECT_NEAR(got[id], probability, 5 * std::sqrt(probability / kDraws)) << id;
  }
}

TEST(Sampler, DependsOnSeedTextAndPositionOnly) {
  const std::vector<float> logits = uneven_logits();
  const auto draws = [&](std::uint64_t seed, std::uint64_t stream) {
    SamplingOptions options = sampled();
    options.seed = seed;
    Sampler sampler(options, {});
    std::vector<std::int32_t> ids;
    for (std::uint64_t position = 0; position < 40; ++position) {
      std::vector<float> own = logits;
      ids.push_back(sampler.next(own, {}, stream, position).id);
    }
    return ids;
  };
  EXPECT_EQ(draws(1, 2), draws(1, 2));
  EXPECT_NE(draws(1, 2), draws(2, 2));
  EXPECT_NE(draws(1, 2), draws(1, 3));
  const std::vector<std::int32_t> once = draws(1, 2);
  EXPECT_GT(std::set<std::int32_t>(once.begin(), once.end()).size(), 5u);
}

TEST(Sampler, NeverChoosesWhatTheTokenizerDoesNotKnow) {
  const std::vector<std::int32_t> unknown = {3, 17, 60};  // 60: beyond the logits
  for (const bool greedy : {true, false}) {
    Sampler sampler({.greedy = greedy}, unknown);
    for (std::uint64_t position = 0; position < 50; ++position) {
      std::vector<float> logits(20, 0.0f);
      logits[3] = logits[17] = 50.0f;
      logits[5] = 1.0f;
      const std::int32_t id = sampler.next(logits, {}, 0, position).id;
      EXPECT_TRUE(greedy ? id == 5 : id != 3 && id != 17) << id;
    }
  }
}

TEST(Sampler, PenalisesWhatWasSaid) {
  Sampler sampler({.greedy = true, .repetition_penalty = 2.0f}, {});
  const std::vector<std::int32_t> text = {1, 1, 2};
  std::vector<float> logits = {1.1f, 2.0f, -0.5f};
  EXPECT_EQ(sampler.next(logits, text, 0, 0).id, 0);
  logits = {-0.9f, -1.0f, -0.5f};
  EXPECT_EQ(sampler.next(logits, text, 0, 0).id, 0);
}

TEST(Sampler, RefusesWhatIsOutOfRange) {
  const auto refused = [](const SamplingOptions& options, const char* name, const char* value) {
    test::expect_message<UsageError>([&] { check(options); }, {name, value});
  };
  refused({.greedy = false, .temperature = 0}, "temperature", "0");
  refused({.repetition_penalty = -1}, "repetition_penalty", "-1");
  refused({.top_k = -2}, "top_k", "-2");
  refused({.top_p = 1.5f}, "top_p", "1.5");
  refused({.min_p = 2}, "min_p", "2");
  EXPECT_NO_THROW(check({.greedy = true, .temperature = 0}));
}

}  // namespace
}  // namespace strata
