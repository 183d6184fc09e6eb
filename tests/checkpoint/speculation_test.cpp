// Proposals of the n-gram look-up change when tokens come, and nothing else: to the bit on a
// batch-invariant device.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/text_runs.h"

namespace strata {
namespace {

using test::expect_same;
using test::frozen_model;
using test::generate;
using test::greedy;
using test::Ids;
using test::Outcome;
using test::RunOptions;
using test::text;
using test::tiny_generator;

Ids repeated(const Ids& what, std::size_t length) {
  Ids ids;
  while (ids.size() < length) ids.push_back(what[ids.size() % what.size()]);
  return ids;
}

Outcome run(const PretrainedModel& model, const GeneratorOptions& options,
            const std::vector<GenerationRequest>& requests, std::int64_t speculate,
            std::int64_t rows = 0) {
  return generate(model, options, requests,
                  {.batch_invariant = true, .speculate = speculate, .speculate_rows = rows});
}

/// Every proposal but for the accepted ones was computed for nothing, and no other token.
void expect_sense(const Outcome& outcome, const std::vector<GenerationRequest>& requests) {
  const GenerationProgress& progress = outcome.progress;
  EXPECT_GE(progress.proposed, progress.accepted);
  std::int64_t ids = 0;
  for (const GenerationResult& result : outcome.results) {
    ids += static_cast<std::int64_t>(result.ids.size());
  }
  EXPECT_LE(progress.accepted, ids);
  EXPECT_EQ(progress.finished, static_cast<std::int64_t>(requests.size()));
}

class Speculation : public testing::TestWithParam<std::string> {
 protected:
  PretrainedModel model_ = frozen_model(GetParam());
  std::int64_t positions_ = model_.model().position_count();

  /// Texts that repeat themselves, and texts that do not, as long as the model's positions allow.
  std::vector<GenerationRequest> requests(std::int64_t new_tokens) const {
    const auto longest =
        static_cast<std::size_t>(positions_ > 0 ? std::min<std::int64_t>(positions_ - 10, 70) : 70);
    std::vector<GenerationRequest> all;
    all.push_back(greedy(repeated({3, 14, 15, 92, 6}, longest), new_tokens));
    all.push_back(greedy(text(12, 5), new_tokens));
    all.push_back(greedy(repeated({7}, 20), new_tokens));
    all.push_back(greedy({11}, new_tokens));
    all.push_back(greedy(text(longest, 40), new_tokens));
    return all;
  }
  GeneratorOptions options() const {
    GeneratorOptions wanted = tiny_generator();
    wanted.sequence_tokens = 192;
    return wanted;
  }
};

TEST_P(Speculation, LeavesGreedyTextsAsTheyAre) {
  const std::vector<GenerationRequest> all = requests(90);
  const Outcome plain = run(model_, options(), all, 0);
  EXPECT_EQ(plain.progress.proposed, 0);
  for (const std::int64_t speculate : {1, 4, 30}) {
    SCOPED_TRACE(speculate);
    const Outcome fast = run(model_, options(), all, speculate);
    expect_same(fast.results, plain.results);
    expect_sense(fast, all);
    EXPECT_GT(fast.progress.accepted, 0);
    EXPECT_LT(fast.progress.passes, plain.progress.passes);
    EXPECT_EQ(fast.progress.tokens, plain.progress.tokens);
    EXPECT_EQ(fast.progress.prompt_tokens, plain.progress.prompt_tokens);
  }
}

TEST_P(Speculation, LeavesSampledTextsAsTheyAre) {
  std::vector<GenerationRequest> all = requests(60);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].sampling.greedy = false;
    all[i].sampling.temperature = 0.7f;
    all[i].sampling.top_k = 3;
    all[i].sampling.seed = 5;
    all[i].stream = i;
  }
  const Outcome plain = run(model_, options(), all, 0);
  const Outcome fast = run(model_, options(), all, 5);
  expect_same(fast.results, plain.results);
  EXPECT_GT(fast.progress.accepted, 0);
  EXPECT_GT(fast.progress.proposed, fast.progress.accepted) << "some were wrong";
}

TEST_P(Speculation, CountsRepetitionsOfAcceptedTokens) {
  std::vector<GenerationRequest> all = requests(60);
  for (GenerationRequest& request : all) request.sampling.repetition_penalty = 1.02f;
  const Outcome plain = run(model_, options(), all, 0);
  const Outcome fast = run(model_, options(), all, 5);
  expect_same(fast.results, plain.results);
  EXPECT_GT(fast.progress.accepted, 0);
}

TEST_P(Speculation, EndsWhereATextEnds) {
  const Ids prompt = repeated({3, 14, 15}, 20);
  const Ids free = run(model_, options(), {greedy(prompt, 18)}, 0).results[0].ids;
  std::vector<GenerationRequest> all;
  for (std::size_t i = 0; i < free.size(); ++i) {
    all.push_back(greedy(prompt, 18));
    all.back().stop_ids = {free[i]};
    all.push_back(greedy(prompt, static_cast<std::int64_t>(i) + 1));
    all.push_back(greedy(prompt, 18));
    const auto seen = std::make_shared<std::size_t>(0);
    all.back().on_token = [seen, i](const SampledToken&) { return (*seen)++ % (i + 1) == i; };
  }
  const Outcome plain = run(model_, options(), all, 0);
  const Outcome fast = run(model_, options(), all, 8);
  expect_same(fast.results, plain.results);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(fast.results[i].reason, plain.results[i].reason) << "text " << i;
  }
  EXPECT_GT(fast.progress.accepted, 0);
  EXPECT_EQ(fast.results[4].ids.size(), 2u);
  const auto proposed = [&](const GenerationRequest& request) {
    return run(model_, options(), {request}, 8).progress.proposed;
  };
  EXPECT_EQ(proposed(greedy(prompt, 1)), 0) << "the pass gives it";
  EXPECT_LE(proposed(greedy(prompt, 3)), 2 + 1);
  if (positions_ == 0) return;
  const auto full = static_cast<std::size_t>(positions_ - 1);
  EXPECT_EQ(proposed(greedy(repeated({3, 14, 15}, full), 9)), 0) << "the last position";
}

TEST_P(Speculation, KeepsToTheRowsItIsGiven) {
  const std::vector<GenerationRequest> all = requests(40);
  const Outcome plain = run(model_, options(), all, 0);
  EXPECT_EQ(run(model_, options(), all, 8, 1).progress.proposed, 0);
  const Outcome few = run(model_, options(), all, 8, 5);
  expect_same(few.results, plain.results);
  EXPECT_GT(few.progress.proposed, 0);
  GeneratorOptions narrow = options();
  narrow.rows = 6;  // prompts in pieces, too
  const Outcome pieces = run(model_, narrow, all, 8);
  expect_same(pieces.results, plain.results);
  EXPECT_GT(pieces.progress.accepted, 0);
}

TEST_P(Speculation, IsThatOfEachRank) {
  const std::vector<GenerationRequest> all = requests(40);
  const Outcome plain = run(model_, options(), all, 0);
  RunOptions how{.ranks = 2, .batch_invariant = true, .speculate = 6};
  expect_same(generate(model_, options(), all, how).results, plain.results);
}

INSTANTIATE_TEST_SUITE_P(Families, Speculation,
                         testing::Values("llama_untied", "qwen3_untied", "gpt2_tied", "opt_tied",
                                         "mistral_window"),
                         [](const auto& model) { return model.param; });

TEST(SpeculationPages, AreNotTakenFromOthers) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> all;
  for (std::int32_t i = 0; i < 4; ++i) all.push_back(greedy(repeated({i, 50, 60}, 58), 66));
  GeneratorOptions options = tiny_generator();
  const Outcome plain = run(model, options, all, 0);
  // Of five pages, four hold the prompts; and two, which is one text alone.
  for (const std::uint64_t pages : {5u, 4u, 2u}) {
    SCOPED_TRACE(pages);
    options.kv_bytes = pages * kv_shape(model.model(), Dtype::kF32).page_bytes();
    const Outcome tight = run(model, options, all, 9);
    expect_same(tight.results, plain.results);
    EXPECT_GT(tight.progress.accepted, 0);
  }
}

TEST(SpeculationPages, AreSharedWithoutRejectedTokens) {
  const PretrainedModel model = frozen_model("qwen3_untied");
  GeneratorOptions options = tiny_generator();
  options.sequences = 1;
  options.sequence_tokens = 1024;  // finished texts keep their pages
  // Proposals of the first reach over the ends of pages; the others begin like what it became.
  const GenerationRequest first = greedy(text(61, 1), 140);
  const Ids became = run(model, options, {first}, 0).results[0].ids;
  std::vector<GenerationRequest> all{first};
  for (const std::size_t more : {4u, 68u, 138u}) {
    Ids prompt = first.prompt;
    prompt.insert(prompt.end(), became.begin(), became.begin() + static_cast<std::ptrdiff_t>(more));
    prompt.push_back(1);
    all.push_back(greedy(std::move(prompt), 20));
  }
  std::vector<GenerationResult> alone;
  for (const GenerationRequest& request : all) {
    alone.push_back(run(model, options, {request}, 0).results.front());
  }
  for (const std::int64_t speculate : {3, 9, 70}) {
    SCOPED_TRACE(speculate);
    const Outcome shared = run(model, options, all, speculate);
    expect_same(shared.results, alone);
    EXPECT_EQ(shared.progress.shared_tokens, 64 + 128 + 192);
    EXPECT_GT(shared.progress.proposed, shared.progress.accepted);
  }
}

TEST(SpeculationPages, PassWithAWindow) {
  const PretrainedModel model = frozen_model("mistral_window");  // of 9 tokens
  GeneratorOptions options = tiny_generator();
  options.sequence_tokens = 128;
  options.rows = 16;
  const std::vector<GenerationRequest> all{greedy(repeated({3, 1, 4}, 70), 400)};
  options.sequence_tokens = 512;
  const Outcome plain = run(model, options, all, 0);
  options.sequence_tokens = 128;
  options.kv_bytes = 4 * kv_shape(model.model(), Dtype::kF32).page_bytes();
  const Outcome fast = run(model, options, all, 12);
  expect_same(fast.results, plain.results);
  EXPECT_GT(fast.progress.accepted, 0);
}

}  // namespace
}  // namespace strata
