// What models of transformers generate, wherever their weights rest.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/group_quantization.h"
#include "core/json_file.h"
#include "parallel/weight_storage.h"
#include "tests/support/decorated_engine.h"
#include "tests/support/faulty_io_engine.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/text_runs.h"

namespace strata {
namespace {

using test::expect_same;
using test::frozen_model;
using test::generate;
using test::greedy;
using test::Ids;
using test::Outcome;
using test::text;
using test::tiny_generator;

class GoldenGeneration : public testing::TestWithParam<std::string> {
 protected:
  /// The prompts of the fixture, and what transformers makes of them.
  void SetUp() override {
    const auto file = test::golden_directory("x").parent_path() / "generation_fixture.json";
    const auto all = nlohmann::json::parse(read_text_file(file, 1 << 20));
    for (const auto& entry : all.at(GetParam())) {
      want_.push_back(entry.at("ids").get<Ids>());
      requests_.push_back(
          greedy(entry.at("prompt").get<Ids>(), static_cast<std::int64_t>(want_.back().size())));
    }
  }
  void expect_fixture(const Outcome& run) const {
    for (std::size_t i = 0; i < want_.size(); ++i) {
      EXPECT_EQ(run.results[i].ids, want_[i]) << "prompt " << i;
      EXPECT_EQ(run.results[i].error, "");
    }
  }

  std::vector<GenerationRequest> requests_;
  std::vector<Ids> want_;
};

TEST_P(GoldenGeneration, GivesTheTokensOfTransformers) {
  const PretrainedModel model = frozen_model(GetParam());
  const Outcome together = generate(model, tiny_generator(), requests_);
  expect_fixture(together);
  EXPECT_EQ(together.plan.streamed, 0u);
  EXPECT_LE(together.progress.passes, 64) << "prompts share passes";

  // Nothing stays, prompts come in pieces, one text after the other.
  const test::TemporaryDirectory directory;
  GeneratorOptions options = tiny_generator();
  options.residency = false;
  options.swap = {{.path = directory.path()}};
  options.rows = 7;
  options.sequences = 1;
  const Outcome streamed = generate(model, options, requests_);
  expect_fixture(streamed);
  EXPECT_GT(streamed.plan.streamed, 0u);
  // But for the ends of files, which fill no block.
  const auto passes = static_cast<std::uint64_t>(streamed.progress.passes);
  EXPECT_GE(streamed.bytes_read + passes * 4096, passes * streamed.plan.streamed);
}

TEST_P(GoldenGeneration, ScoresAsTransformersDoes) {
  const test::GoldenModel golden(GetParam());
  const Batch batch = golden.batch();
  const MicroBatch& rows = batch.micro_batches.front();
  const std::int64_t length = rows.tokens_per_sequence, vocabulary = 97;
  const std::vector<float> logits = golden.expected("logits");
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<float>> want;
  for (std::int64_t sequence = 0; sequence < rows.sequences; ++sequence) {
    const auto first = rows.ids.begin() + sequence * length;
    for (const std::int64_t from : {std::int64_t{1}, length - 5}) {
      GenerationRequest request;
      request.prompt.assign(first, first + length);
      request.max_new_tokens = 0;
      request.score_from = from;
      requests.push_back(std::move(request));
      std::vector<float> scores;
      for (std::int64_t t = from; t < length; ++t) {
        const auto row = static_cast<std::size_t>((sequence * length + t - 1) * vocabulary);
        scores.push_back(log_probability(std::span(logits).subspan(row, vocabulary), first[t]));
      }
      want.push_back(std::move(scores));
    }
  }
  GeneratorOptions options = tiny_generator();
  options.rows = 20;  // in pieces
  const Outcome run = generate(frozen_model(GetParam()), options, requests);
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(run.results[i].scores.size(), want[i].size());
    EXPECT_TRUE(run.results[i].ids.empty());
    for (std::size_t t = 0; t < want[i].size(); ++t) {
      EXPECT_NEAR(run.results[i].scores[t].log_probability, want[i][t], 2e-5);
    }
  }
}

TEST_P(GoldenGeneration, GivesThemOnAnyNumberOfRanks) {
  const PretrainedModel model = frozen_model(GetParam());
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(ranks);
    GeneratorOptions options = tiny_generator();
    expect_fixture(generate(model, options, requests_, {.ranks = ranks}));
    const test::TemporaryDirectory directory;
    options.residency = false;
    options.swap = {{.path = directory.path()}};
    expect_fixture(generate(model, options, requests_, {.ranks = ranks}));
  }
}

TEST_P(GoldenGeneration, GivesTheSameBitsWhereverWeightsRest) {
  const PretrainedModel model = frozen_model(GetParam());
  const test::TemporaryDirectory directory;
  const Outcome resident = generate(model, tiny_generator(), requests_);
  const std::vector<GenerationResult>& want = resident.results;
  for (const int depth : {0, 1, 3}) {
    GeneratorOptions options = tiny_generator();
    options.residency = false;
    options.swap = {{.path = directory.path()}};
    options.prefetch_depth = depth;
    const Outcome run = generate(model, options, requests_);
    expect_same(run.results, want);
    // Some of it stays.
    options.residency = true;
    options.prefetch_depth = 0;
    options.kv_bytes = resident.plan.kv;
    options.dram_bytes = resident.plan.dram() - 1;
    const Outcome partly = generate(model, options, requests_);
    EXPECT_GT(partly.plan.resident, 0u);
    EXPECT_GT(partly.plan.streamed, 0u);
    expect_same(partly.results, want);
  }
}

TEST_P(GoldenGeneration, GivesTheSameBitsOnAnyNumberOfRanks) {
  const PretrainedModel model = frozen_model(GetParam());
  const test::TemporaryDirectory directory;
  for (const bool residency : {true, false}) {
    GeneratorOptions options = tiny_generator();
    options.residency = residency;
    options.swap = {{.path = directory.path()}};
    const Outcome want = generate(model, options, requests_);
    for (const int ranks : {2, 4}) {
      SCOPED_TRACE(ranks);
      expect_same(generate(model, options, requests_, {.ranks = ranks}).results, want.results);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenGeneration, testing::ValuesIn(test::golden_models()),
                         [](const auto& model) { return model.param; });

TEST(Generator, ReadsWhatStaysOnce) {
  const PretrainedModel model = frozen_model("llama_untied");
  for (const int ranks : {1, 2}) {
    const Outcome run =
        generate(model, tiny_generator(), {greedy(text(9, 1), 20)}, {.ranks = ranks});
    EXPECT_EQ(run.plan.streamed, 0u);
    EXPECT_EQ(run.plan.prefetch_depth, 2) << "what stays complete needs no other room";
    EXPECT_EQ(run.plan.keeps_gathered, ranks == 2);
    // Blocks of 4096 bytes around each stretch, but for the ends of files, which fill none.
    const std::uint64_t weights = run.plan.resident;
    EXPECT_GT(run.bytes_read, weights - 4096);
    EXPECT_LT(run.bytes_read, weights + (1 << 18)) << "20 passes";
  }
}

TEST(Generator, GathersOnceWhereWholeBlocksFitBesideKeysAndValues) {
  const PretrainedModel model = frozen_model("llama_tied");
  const std::vector<GenerationRequest> requests{greedy(text(9, 1), 12), greedy(text(5, 2), 12)};
  GeneratorOptions options = tiny_generator();
  const Outcome once = generate(model, options, requests, {.ranks = 2});
  EXPECT_TRUE(once.plan.keeps_gathered);
  EXPECT_EQ(once.plan.gathered, 2 * once.plan.resident);
  // One rank without the room is enough.
  const Outcome every_pass =
      generate(model, options, requests, {.ranks = 2, .dram_of_last_rank = once.plan.dram() - 1});
  EXPECT_FALSE(every_pass.plan.keeps_gathered);
  EXPECT_EQ(every_pass.plan.resident, once.plan.resident);
  EXPECT_EQ(every_pass.plan.kv, once.plan.kv);
  EXPECT_LT(every_pass.plan.gathered, once.plan.gathered);
  expect_same(every_pass.results, once.results);
}

TEST(Generator, EndsWithTheCauseOfAFailedRead) {
  const PretrainedModel model = frozen_model("llama_untied");
  const std::vector<GenerationRequest> requests{greedy(text(9, 1), 4), greedy(text(5, 2), 4)};
  for (const bool stays : {true, false}) {
    for (const int ranks : {1, 2}) {
      // What stays takes a rank no more than twenty reads in all.
      for (int request = 0; request < (stays ? 15 : 60); request += stays ? 3 : 13) {
        GeneratorOptions options = tiny_generator();
        options.residency = stays;
        options.make_engine = test::decorate<test::FaultyIoEngine>(
            test::FaultyIoEngine::Fault{.request = request, .system_error = EIO});
        SCOPED_TRACE(fmt::format("request {}, {} ranks", request, ranks));
        test::expect_message<IoError>([&] { generate(model, options, requests, {.ranks = ranks}); },
                                      {"(faulty)", "an injected fault"});
      }
    }
  }
}

/// What a model computes whose weights are quantised, in full precision.
ParameterSource rounded(const ParameterSource& source, const WeightStorage& storage) {
  return [source, storage](Parameter parameter, std::int64_t begin, std::span<float> values) {
    const Dtype dtype = storage.of(*parameter);
    if (!is_quantized(dtype)) return source(parameter, begin, values);
    std::vector<float> all(static_cast<std::size_t>(parameter->shape.numel()));
    source(parameter, 0, all);
    std::vector<std::byte> groups(storage_bytes(dtype, parameter->shape.numel()));
    quantize(all, dtype, groups.data());
    dequantize(groups.data(), dtype, all);
    std::copy_n(all.begin() + begin, values.size(), values.begin());
  };
}

class QuantizedGeneration : public testing::TestWithParam<std::string> {};

TEST_P(QuantizedGeneration, IsThatOfTheRoundedModel) {
  const PretrainedModel model = frozen_model(GetParam());
  const std::vector<GenerationRequest> requests{greedy(text(9, 1), 24), greedy(text(30, 2), 10)};
  for (const Dtype weights : {Dtype::kQ8, Dtype::kQ4}) {
    SCOPED_TRACE(name(weights));
    GeneratorOptions options = tiny_generator();
    const ParameterSource source = rounded(model.source(), {Dtype::kF32, weights});
    const auto want = generate(model, options, requests, {.values = &source});
    EXPECT_NE(want.results[0].log_probabilities,
              generate(model, options, requests).results[0].log_probabilities);
    options.weights = weights;
    const Outcome got = generate(model, options, requests);
    EXPECT_LT(got.plan.resident, want.plan.resident);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(got.results[i].ids, want.results[i].ids);
      for (std::size_t t = 0; t < got.results[i].ids.size(); ++t) {
        EXPECT_NEAR(got.results[i].log_probabilities[t], want.results[i].log_probabilities[t],
                    1e-4);
      }
    }
    const test::TemporaryDirectory directory;
    options.residency = false;
    options.swap = {{.path = directory.path()}};
    expect_same(generate(model, options, requests).results, got.results);
    EXPECT_EQ(generate(model, options, requests, {.ranks = 3}).results[0].ids, got.results[0].ids);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizedGeneration,
                         testing::Values("llama_tied", "gpt2_untied", "opt_post_norm"),
                         [](const auto& model) { return model.param; });

TEST(GenerationPlan, SaysWhatIsTooLittle) {
  const PretrainedModel model = frozen_model("llama_untied");
  const std::vector<GenerationRequest> requests{greedy({1}, 1)};
  GeneratorOptions options = tiny_generator();
  options.kv_bytes = 1000;
  test::expect_message<UsageError>([&] { generate(model, options, requests); },
                                   {"--kv_memory", "one sequence of 128 tokens"});
  options.kv_bytes.reset();
  options.dram_bytes = 1 << 20;
  test::expect_message<UsageError>([&] { generate(model, options, requests); },
                                   {"--dram", "complete blocks"});
  const PretrainedModel transposed = frozen_model("gpt2_tied");
  options.dram_bytes.reset();
  options.residency = false;
  test::expect_message<UsageError>([&] { generate(transposed, options, requests); },
                                   {"--swap", "in place"});
}

}  // namespace
}  // namespace strata
