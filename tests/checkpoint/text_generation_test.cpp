// Many texts at once: in company, in too little memory, with equal beginnings, and their ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/temporary_directory.h"
#include "tests/support/text_runs.h"

namespace strata {
namespace {

using test::frozen_model;
using test::generate;
using test::greedy;
using test::Ids;
using test::Outcome;
using test::RunOptions;
using test::text;
using test::tiny_generator;

TEST(TextGeneration, GivesATextTheSameWhoeverIsBeside) {
  const PretrainedModel model = frozen_model("llama_untied");
  std::vector<GenerationRequest> requests;
  std::vector<GenerationResult> alone;
  for (std::int32_t i = 0; i < 12; ++i) {
    requests.push_back(greedy(text(static_cast<std::size_t>(3 + 11 * i % 40), i), 5 + 3 * i % 31));
    alone.push_back(generate(model, tiny_generator(), {requests.back()}).results.front());
  }
  for (const std::int64_t rows : {0, 5, 33}) {
    GeneratorOptions options = tiny_generator();
    options.rows = rows;
    const Outcome run = generate(model, options, requests);
    test::expect_same(run.results, alone);
    EXPECT_EQ(run.progress.finished, 12);
    EXPECT_EQ(run.progress.preempted, 0);
  }
}

TEST(TextGeneration, GivesATextTheSameBitsInBf16OnABatchInvariantDevice) {
  for (const char* name : {"llama_untied", "gpt2_untied"}) {
    SCOPED_TRACE(name);
    const PretrainedModel model = frozen_model(name);
    const test::TemporaryDirectory directory;
    GeneratorOptions options = tiny_generator();
    options.compute = Dtype::kBf16;
    options.sequences = 12;
    options.swap = {{.path = directory.path()}};
    std::vector<GenerationRequest> requests;
    for (std::int32_t i = 0; i < 12; ++i) {
      requests.push_back(greedy(text(static_cast<std::size_t>(2 + 11 * i % 24), i), 14));
      requests.back().score_from = 1;
    }
    const RunOptions invariant{.batch_invariant = true};
    const Outcome beside = generate(model, options, requests, invariant);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const Outcome alone = generate(model, options, {requests[i]}, invariant);
      test::expect_same(alone.results, {beside.results[i]});
      const auto& scores = alone.results[0].scores;
      ASSERT_EQ(scores.size(), requests[i].prompt.size() - 1);
      for (std::size_t t = 0; t < scores.size(); ++t) {
        EXPECT_EQ(scores[t].log_probability, beside.results[i].scores[t].log_probability);
      }
    }
  }
}

TEST(TextGeneration, ComputesAgainWhatHadToGiveItsPagesBack) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 4; ++i) requests.push_back(greedy(text(60, i), 64));
  GeneratorOptions options = tiny_generator();
  const std::vector<GenerationResult> want = generate(model, options, requests).results;
  options.kv_bytes = 5 * kv_shape(model.model(), Dtype::kF32).page_bytes();
  const Outcome tight = generate(model, options, requests);
  EXPECT_GT(tight.progress.preempted, 0);
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(tight.results[i].ids, want[i].ids);
}

TEST(TextGeneration, ReadsBackWhatWaitedOnADrive) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 4; ++i) requests.push_back(greedy(text(60, i), 64));
  requests[2].score_from = 5;
  GeneratorOptions options = tiny_generator();
  const std::vector<GenerationResult> want = generate(model, options, requests).results;
  const test::TemporaryDirectory directory;
  const std::size_t page = kv_shape(model.model(), Dtype::kF32).page_bytes();
  options.kv_bytes = 5 * page;
  options.swap = {{.path = directory.path()}};
  options.kv_swap_bytes = 64 * (page + 4096);
  const Outcome run = generate(model, options, requests);
  EXPECT_GT(run.progress.preempted, 0);
  EXPECT_EQ(run.progress.swapped, run.progress.preempted);
  EXPECT_EQ(run.progress.prompt_tokens, 4 * 60) << "nothing is computed twice";
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(run.results[i].ids, want[i].ids);
    EXPECT_EQ(run.results[i].scores.size(), want[i].scores.size());
  }
  // Where there is no room for all, the rest is computed again.
  options.kv_swap_bytes = page + 4096;
  const Outcome less = generate(model, options, requests);
  EXPECT_LT(less.progress.swapped, less.progress.preempted);
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(less.results[i].ids, want[i].ids);
}

TEST(TextGeneration, KeepsKeysAndValuesInFewerBits) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 4; ++i) requests.push_back(greedy(text(60, i), 40));
  for (GenerationRequest& request : requests) request.score_from = 1;
  GeneratorOptions options = tiny_generator();
  const Outcome want = generate(model, options, requests);
  std::vector<double> errors;
  for (const Dtype kv : {Dtype::kQ8, Dtype::kQ4}) {
    options.kv = kv;
    const Outcome got = generate(model, options, requests);
    EXPECT_LT(got.plan.kv, want.plan.kv / (kv == Dtype::kQ8 ? 2 : 4));
    double square = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(got.results[i].error, "");
      EXPECT_EQ(got.results[i].ids.size(), 40u);
      ASSERT_EQ(got.results[i].scores.size(), want.results[i].scores.size());
      for (std::size_t t = 0; t < got.results[i].scores.size(); ++t) {
        const double off =
            got.results[i].scores[t].log_probability - want.results[i].scores[t].log_probability;
        square += off * off;
      }
    }
    errors.push_back(std::sqrt(square / (4 * 59)));
    // However texts are cut into passes, with pages taken away and read back.
    const test::TemporaryDirectory directory;
    GeneratorOptions tight = options;
    const std::size_t page = kv_shape(model.model(), kv).page_bytes();
    tight.rows = 7;
    tight.kv_bytes = 5 * page;
    tight.swap = {{.path = directory.path()}};
    tight.kv_swap_bytes = 64 * (page + 4096);
    const Outcome again = generate(model, tight, requests);
    EXPECT_GT(again.progress.swapped, 0);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(again.results[i].ids, got.results[i].ids);
    }
  }
  EXPECT_GT(errors[0], 0.0);
  EXPECT_LT(errors[0], 0.02);
  EXPECT_LT(errors[0], errors[1]);
  EXPECT_LT(errors[1], 0.3);
}

TEST(TextGeneration, SharesThePagesOfWhatTextsBeginWith) {
  const PretrainedModel model = frozen_model("qwen3_untied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 3; ++i) {
    Ids prompt = text(150, 1);
    prompt.push_back(i + 1);
    requests.push_back(greedy(std::move(prompt), 9));
  }
  GeneratorOptions options = tiny_generator();
  options.sequence_tokens = 256;
  std::vector<GenerationResult> alone;
  for (const GenerationRequest& request : requests) {
    alone.push_back(generate(model, options, {request}).results.front());
  }
  options.sequences = 1;
  const Outcome run = generate(model, options, requests);
  EXPECT_EQ(run.progress.shared_tokens, 2 * 128) << "two full pages, twice";
  EXPECT_EQ(run.progress.prompt_tokens, 3 * 151 - 2 * 128);
  for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(run.results[i].ids, alone[i].ids);
}

TEST(TextGeneration, ReadsBeginningsBackThatHadNoRoomInMemory) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> requests;
  for (const std::int32_t kind : {1, 2, 3, 1, 2, 3}) {  // each three pages, and memory has four
    Ids prompt = text(150, kind);
    prompt.push_back(static_cast<std::int32_t>(requests.size()) + 1);
    requests.push_back(greedy(std::move(prompt), 9));
  }
  GeneratorOptions options = tiny_generator();
  options.sequence_tokens = 256;
  options.sequences = 1;
  const std::size_t page = kv_shape(model.model(), Dtype::kF32).page_bytes();
  options.kv_bytes = 4 * page;
  const Outcome want = generate(model, options, requests);
  EXPECT_EQ(want.progress.shared_tokens, 0);
  const test::TemporaryDirectory directory;
  options.swap = {{.path = directory.path()}};
  options.kv_swap_bytes = 64 * (page + 4096);
  const Outcome run = generate(model, options, requests);
  EXPECT_EQ(run.progress.shared_tokens, 3 * 128) << "the last three begin as the first";
  EXPECT_EQ(run.progress.read_tokens, 3 * 128);
  EXPECT_EQ(run.progress.prompt_tokens, 6 * 151 - 3 * 128);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(run.results[i].ids, want.results[i].ids);
  }
}

TEST(TextGeneration, KeepsOnlyThePagesOfAWindow) {
  const PretrainedModel model = frozen_model("mistral_window");  // of 9 tokens
  GeneratorOptions options = tiny_generator();
  options.sequence_tokens = 128;
  options.rows = 16;
  options.kv_bytes = 4 * kv_shape(model.model(), Dtype::kF32).page_bytes();
  const Outcome run = generate(model, options, {greedy(text(70, 3), 400)});
  EXPECT_EQ(run.results[0].error, "");
  EXPECT_EQ(run.results[0].ids.size(), 400u) << "470 tokens, of which 256 have room";
  options.kv_bytes.reset();
  options.sequence_tokens = 512;
  EXPECT_EQ(generate(model, options, {greedy(text(70, 3), 400)}).results[0].ids,
            run.results[0].ids);
}

TEST(TextGeneration, ScoresWhatFillsAllPages) {
  const PretrainedModel model = frozen_model("llama_tied");
  GenerationRequest request;
  request.prompt = text(64, 1);
  request.max_new_tokens = 0;
  request.score_from = 1;
  GeneratorOptions options = tiny_generator();
  options.sequence_tokens = 64;
  options.kv_bytes = kv_shape(model.model(), Dtype::kF32).page_bytes();
  EXPECT_EQ(generate(model, options, {request, request}).results[1].scores.size(), 63u);
}

TEST(TextGeneration, EndsWhereItIsTold) {
  const PretrainedModel model = frozen_model("llama_tied");
  const Ids prompt = text(5, 2);
  const Ids free = generate(model, tiny_generator(), {greedy(prompt, 20)}).results[0].ids;
  GenerationRequest stops = greedy(prompt, 20);
  stops.stop_ids = {free[7]};
  const auto first = std::find(free.begin(), free.end(), free[7]);
  GenerationRequest told = greedy(prompt, 20);
  int seen = 0;
  told.on_token = [&seen](const SampledToken&) { return ++seen == 4; };
  const Outcome run = generate(model, tiny_generator(), {stops, told, greedy(prompt, 3)});
  EXPECT_EQ(run.results[0].ids, Ids(free.begin(), first));
  EXPECT_EQ(run.results[0].reason, FinishReason::kStop);
  EXPECT_EQ(run.results[1].ids, Ids(free.begin(), free.begin() + 4));
  EXPECT_EQ(run.results[1].reason, FinishReason::kStop);
  EXPECT_EQ(run.results[2].ids.size(), 3u);
  EXPECT_EQ(run.results[2].reason, FinishReason::kLength);
  EXPECT_GT(run.results[2].seconds, 0);
  EXPECT_LE(run.results[2].seconds_to_first_token, run.results[2].seconds);
}

TEST(TextGeneration, RefusesOneRequestAndServesTheOthers) {
  const PretrainedModel model = frozen_model("gpt2_tied");  // 40 positions
  GenerationRequest strange = greedy({1, 97}, 3);
  const Outcome run =
      generate(model, tiny_generator(),
               {greedy({}, 3), strange, greedy(text(40, 1), 3), greedy(text(38, 1), 9)});
  const auto expect_error = [&](std::size_t index, const std::string& part) {
    EXPECT_EQ(run.results[index].reason, FinishReason::kError);
    EXPECT_NE(run.results[index].error.find(part), std::string::npos) << run.results[index].error;
  };
  expect_error(0, "no token");
  expect_error(1, "id 97 is outside the model's vocabulary of 97");
  expect_error(2, "40 tokens and the model's context 40");
  EXPECT_EQ(run.results[3].reason, FinishReason::kLength);
  EXPECT_EQ(run.results[3].ids.size(), 2u) << "up to the last position";
}

}  // namespace
}  // namespace strata
