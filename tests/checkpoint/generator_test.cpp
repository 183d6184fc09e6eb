// Text that models of transformers continue, wherever their weights rest and whoever is beside.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/group_quantization.h"
#include "core/json_file.h"
#include "parallel/text_generation.h"
#include "parallel/weight_storage.h"
#include "tests/support/golden_model.h"
#include "tests/support/messages.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

PretrainedModel frozen_model(const std::string& name) {
  PretrainedModel model = load_pretrained(test::golden_directory(name));
  model.freeze_all();
  return model;
}

GeneratorOptions tiny_options() {
  GeneratorOptions options;
  options.compute = Dtype::kF32;
  options.sequences = 4;
  options.sequence_tokens = 128;
  return options;
}

struct Outcome {
  std::vector<GenerationResult> results;  // by request
  GenerationProgress progress;            // of rank 0
  GenerationPlan plan;                    // of rank 0
  std::uint64_t bytes_read = 0;           // of rank 0
  std::vector<float> logits;              // of rank 0: of the tokens that were chosen
};

/// Continues prompts greedily; prompt i on rank i modulo `ranks`.
Outcome generate(const PretrainedModel& model, const GeneratorOptions& options,
                 const std::vector<GenerationRequest>& requests, int ranks = 1,
                 const ParameterSource* values = nullptr) {
  Outcome run;
  run.results.resize(requests.size());
  std::mutex mutex;
  test::run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const Context context{*device, communicator, log};
    const ParameterSource& source = values != nullptr ? *values : model.source();
    Generator generator(context, model.model(), options, source,
                        values != nullptr ? ParameterLocator() : model.locator());
    TextGeneration texts(context, generator, {.max_sequences = options.sequences});
    auto next = static_cast<std::size_t>(communicator.rank());
    GenerationProgress progress;
    texts.run(
        [&]() -> std::optional<GenerationRequest> {
          if (next >= requests.size()) return std::nullopt;
          GenerationRequest request = requests[next];
          request.on_finish = [&, index = next](GenerationResult result) {
            const std::lock_guard lock(mutex);
            run.results[index] = std::move(result);
          };
          next += static_cast<std::size_t>(ranks);
          return request;
        },
        [&](const GenerationProgress& now) { progress = now; });
    if (communicator.rank() != 0) return;
    run.progress = progress;
    run.plan = generator.plan();
    run.bytes_read = generator.bytes_read();
  });
  return run;
}

GenerationRequest greedy(Ids prompt, std::int64_t count) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = count;
  request.sampling.log_probability = true;
  return request;
}

Ids text(std::size_t length, std::int32_t first) {
  Ids ids;
  for (std::size_t i = 0; i < length; ++i) {
    ids.push_back(
        static_cast<std::int32_t>((static_cast<std::size_t>(first) + 7 * i + i * i) % 97));
  }
  return ids;
}

void expect_same(const std::vector<GenerationResult>& got,
                 const std::vector<GenerationResult>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].ids, want[i].ids) << "text " << i;
    EXPECT_EQ(got[i].log_probabilities, want[i].log_probabilities) << "to the bit, text " << i;
  }
}

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
  const Outcome together = generate(model, tiny_options(), requests_);
  expect_fixture(together);
  EXPECT_EQ(together.plan.streamed, 0u);
  EXPECT_LE(together.progress.passes, 64) << "prompts share passes";

  // Nothing stays, prompts come in pieces, one text after the other.
  const test::TemporaryDirectory directory;
  GeneratorOptions options = tiny_options();
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
  GeneratorOptions options = tiny_options();
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
    GeneratorOptions options = tiny_options();
    expect_fixture(generate(model, options, requests_, ranks));
    const test::TemporaryDirectory directory;
    options.residency = false;
    options.swap = {{.path = directory.path()}};
    expect_fixture(generate(model, options, requests_, ranks));
  }
}

TEST_P(GoldenGeneration, GivesTheSameBitsWhereverWeightsRest) {
  const PretrainedModel model = frozen_model(GetParam());
  const test::TemporaryDirectory directory;
  const Outcome resident = generate(model, tiny_options(), requests_);
  const std::vector<GenerationResult>& want = resident.results;
  for (const int depth : {0, 1, 3}) {
    GeneratorOptions options = tiny_options();
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

INSTANTIATE_TEST_SUITE_P(Families, GoldenGeneration, testing::ValuesIn(test::golden_models()),
                         [](const auto& model) { return model.param; });

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
    GeneratorOptions options = tiny_options();
    const ParameterSource source = rounded(model.source(), {Dtype::kF32, weights});
    const auto want = generate(model, options, requests, 1, &source);
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
    EXPECT_EQ(generate(model, options, requests, 3).results[0].ids, got.results[0].ids);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizedGeneration,
                         testing::Values("llama_tied", "gpt2_untied", "opt_post_norm"),
                         [](const auto& model) { return model.param; });

TEST(TextGeneration, GivesATextTheSameWhoeverIsBeside) {
  const PretrainedModel model = frozen_model("llama_untied");
  std::vector<GenerationRequest> requests;
  std::vector<GenerationResult> alone;
  for (std::int32_t i = 0; i < 12; ++i) {
    requests.push_back(greedy(text(static_cast<std::size_t>(3 + 11 * i % 40), i), 5 + 3 * i % 31));
    alone.push_back(generate(model, tiny_options(), {requests.back()}).results.front());
  }
  for (const std::int64_t rows : {0, 5, 33}) {
    GeneratorOptions options = tiny_options();
    options.rows = rows;
    const Outcome run = generate(model, options, requests);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      EXPECT_EQ(run.results[i].ids, alone[i].ids) << "text " << i << ", rows " << rows;
    }
    EXPECT_EQ(run.progress.finished, 12);
    EXPECT_EQ(run.progress.preempted, 0);
  }
}

TEST(TextGeneration, ComputesAgainWhatHadToGiveItsPagesBack) {
  const PretrainedModel model = frozen_model("qwen2_tied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 4; ++i) requests.push_back(greedy(text(60, i), 64));
  GeneratorOptions options = tiny_options();
  const std::vector<GenerationResult> want = generate(model, options, requests).results;
  options.kv_bytes = 5 * kv_shape(model.model(), Dtype::kF32).page_bytes();
  const Outcome tight = generate(model, options, requests);
  EXPECT_GT(tight.progress.preempted, 0);
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(tight.results[i].ids, want[i].ids);
}

TEST(TextGeneration, SharesThePagesOfWhatTextsBeginWith) {
  const PretrainedModel model = frozen_model("qwen3_untied");
  std::vector<GenerationRequest> requests;
  for (std::int32_t i = 0; i < 3; ++i) {
    Ids prompt = text(150, 1);
    prompt.push_back(i + 1);
    requests.push_back(greedy(std::move(prompt), 9));
  }
  GeneratorOptions options = tiny_options();
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

TEST(TextGeneration, KeepsOnlyThePagesOfAWindow) {
  const PretrainedModel model = frozen_model("mistral_window");  // of 9 tokens
  GeneratorOptions options = tiny_options();
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
  GeneratorOptions options = tiny_options();
  options.sequence_tokens = 64;
  options.kv_bytes = kv_shape(model.model(), Dtype::kF32).page_bytes();
  EXPECT_EQ(generate(model, options, {request, request}).results[1].scores.size(), 63u);
}

TEST(TextGeneration, EndsWhereItIsTold) {
  const PretrainedModel model = frozen_model("llama_tied");
  const Ids prompt = text(5, 2);
  const Ids free = generate(model, tiny_options(), {greedy(prompt, 20)}).results[0].ids;
  GenerationRequest stops = greedy(prompt, 20);
  stops.stop_ids = {free[7]};
  const auto first = std::find(free.begin(), free.end(), free[7]);
  GenerationRequest told = greedy(prompt, 20);
  int seen = 0;
  told.on_token = [&seen](const SampledToken&) { return ++seen == 4; };
  const Outcome run = generate(model, tiny_options(), {stops, told, greedy(prompt, 3)});
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
      generate(model, tiny_options(),
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

TEST(GenerationPlan, SaysWhatIsTooLittle) {
  const PretrainedModel model = frozen_model("llama_untied");
  const std::vector<GenerationRequest> requests{greedy({1}, 1)};
  GeneratorOptions options = tiny_options();
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
