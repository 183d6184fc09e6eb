// Ten steps of AdamW with clipping, against torch. STRATA_KEEP_MODELS=DIR keeps the trained models
// with Strata's logits for tests/golden/check_saved_model.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "optimizer/split.h"
#include "tests/support/golden_model.h"
#include "tests/support/plain_visit.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::GoldenModel;

constexpr int kSteps = 10;

/// What the fixtures' ten steps were made with, for `ranks` ranks.
TrainerOptions torch_options(int accumulation, int ranks) {
  TrainerOptions options;
  const int micro_batches = std::max(1, accumulation / ranks);
  options.shape = {.micro_batches = micro_batches,
                   .sequences = 4 / (micro_batches * ranks),
                   .sequence_length = 33};
  options.adamw = {.weight_decay = 0.01};
  options.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1e-3};
  options.max_grad_norm = 1.0;
  options.placement.compute = Dtype::kF32;
  return options;
}

struct Curve {
  std::vector<double> losses;
  std::vector<double> norms;
};

Curve train(const GoldenModel& golden, const TrainerOptions& options, int ranks) {
  Curve curve;
  test::run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    Trainer trainer({*device, communicator, log}, golden.model().model(), options,
                    golden.model().source());
    Curve own;
    for (int step = 0; step < kSteps; ++step) {
      const StepReport report = trainer.step(
          golden.training_batch(step, options.shape.micro_batches, communicator.rank(), ranks));
      own.losses.push_back(report.loss);
      own.norms.push_back(report.gradient_norm);
    }
    if (communicator.rank() == 0) curve = own;
  });
  return curve;
}

void expect_near_torch(const GoldenModel& golden, int accumulation, const Curve& got) {
  const std::string suffix = std::to_string(accumulation);
  const std::vector<float> losses = golden.expected("train.losses." + suffix);
  const std::vector<float> norms = golden.expected("train.gradient_norms." + suffix);
  ASSERT_EQ(got.losses.size(), losses.size());
  for (std::size_t step = 0; step < losses.size(); ++step) {
    EXPECT_NEAR(got.losses[step], losses[step], 1e-5 * losses[step]) << "step " << step;
    EXPECT_NEAR(got.norms[step], norms[step], 1e-4 * norms[step]) << "step " << step;
  }
  EXPECT_GT(norms.front(), 1.0f) << "clipping has nothing to do";
}

class GoldenTraining : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTraining, FollowsTorchForTenStepsWhereverTheStateRests) {
  const GoldenModel golden(GetParam());
  const test::TemporaryDirectory swap;
  for (const int accumulation : {1, 4}) {
    for (const int ranks : {1, 2}) {
      SCOPED_TRACE("accumulation " + std::to_string(accumulation) + ", ranks " +
                   std::to_string(ranks));
      TrainerOptions options = torch_options(accumulation, ranks);
      const Curve in_dram = train(golden, options, ranks);
      expect_near_torch(golden, accumulation, in_dram);
      options.placement.swap = {{.path = swap.path()}};
      options.placement.residency = false;
      options.placement.activations = Place::kSwap;
      const Curve streamed = train(golden, options, ranks);
      EXPECT_EQ(streamed.losses, in_dram.losses);
      EXPECT_EQ(streamed.norms, in_dram.norms);
    }
  }
}

TEST_P(GoldenTraining, StaysNearFp32InBf16ForTenSteps) {
  const GoldenModel golden(GetParam());
  TrainerOptions options = torch_options(1, 1);
  const Curve in_fp32 = train(golden, options, 1);
  options.placement.compute = Dtype::kBf16;
  const Curve in_bf16 = train(golden, options, 1);
  double largest = 0;
  for (std::size_t step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(in_bf16.losses[step], in_fp32.losses[step], 2e-2) << "step " << step;
    largest = std::max(largest, std::abs(in_bf16.losses[step] - in_fp32.losses[step]));
  }
  RecordProperty("difference", std::to_string(largest));
  EXPECT_NE(in_bf16.losses, in_fp32.losses) << "both computed in the same precision";
}

/// Ten steps hardly show a decay of 0.01; one step with a large one does.
TEST_P(GoldenTraining, DecaysMatricesAndNothingElse) {
  const GoldenModel golden(GetParam());
  const auto device = make_cpu_device(1);
  const auto self = make_self_communicator();
  Log log(1);
  const Context context{*device, *self, log};
  const auto parameters_after_a_step = [&](double weight_decay) {
    TrainerOptions options = torch_options(1, 1);
    options.adamw.weight_decay = weight_decay;
    Trainer trainer(context, golden.model().model(), options, golden.model().source());
    trainer.step(golden.training_batch(0, 1));
    std::map<std::string, std::vector<float>> parameters;
    for (const MappedParameter& mapped : name_map(golden.model().config())) {
      parameters[mapped.name] = trainer.read(mapped.name);
    }
    return parameters;
  };
  const auto without = parameters_after_a_step(0.0), with = parameters_after_a_step(100.0);
  for (const MappedParameter& mapped : name_map(golden.model().config())) {
    const std::vector<float>& got = with.at(mapped.name);
    if (mapped.source.hf_shape.size() < 2) {
      EXPECT_EQ(got, without.at(mapped.name)) << mapped.name;
      continue;
    }
    std::vector<float> want = without.at(mapped.name);
    std::vector<float> start(want.size());
    golden.model().source()(golden.model().model().find(mapped.name), 0, start);
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[i], want[i] - 0.1f * start[i], 1e-6f) << mapped.name << ", element " << i;
    }
  }
}

/// Logits of the fixture's batch, in fp32 whatever the weights are in.
std::vector<float> logits_of(const PretrainedModel& model, const Batch& batch) {
  test::PlainModel plain(model.model(), Dtype::kF32, model.source());
  plain.run(batch, 1.0f, false);
  return plain.logits(0);
}

void keep_logits(const std::filesystem::path& directory, const std::vector<float>& logits,
                 const MicroBatch& batch) {
  std::filesystem::create_directory(directory);
  SafetensorsWriter writer(directory, {{"logits", {2, 33, 97}}, {"input_ids", {2, 33}}},
                           {.overwrite = true});
  const std::vector<float> ids(batch.ids.begin(), batch.ids.end());
  writer.write("logits", std::span<const float>(logits));
  writer.write("input_ids", std::span<const float>(ids));
  writer.finish();
}

/// The weights that a model saved in `dtype` should have.
std::vector<float> as_saved(std::vector<float> values, Dtype dtype) {
  if (dtype == Dtype::kF32) return values;
  for (float& value : values) {
    bf16 upper;
    upper.bits = split(value).hi;
    value = static_cast<float>(upper);
  }
  return values;
}

TEST_P(GoldenTraining, SavesAModelThatLoadsWithTheSameBits) {
  const GoldenModel golden(GetParam());
  const test::TemporaryDirectory swap, temporary;
  const char* keep = std::getenv("STRATA_KEEP_MODELS");
  const std::filesystem::path saved_models =
      keep == nullptr ? std::filesystem::path(temporary.path()) : std::filesystem::path(keep);
  test::run_on_threads(2, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const Context context{*device, communicator, log};
    TrainerOptions options = torch_options(1, 2);
    options.placement.swap = {{.path = swap.path()}};
    options.placement.residency = false;
    Trainer trainer(context, golden.model().model(), options, golden.model().source());
    for (int step = 0; step < kSteps; ++step) {
      trainer.step(golden.training_batch(step, 1, communicator.rank(), 2));
    }
    for (const auto& [in_file, dtype] :
         {std::pair{SaveDtype::kSource, Dtype::kF32}, {SaveDtype::kBf16, Dtype::kBf16}}) {
      const std::filesystem::path out =
          saved_models / fmt::format("{}_{}", GetParam(), name(dtype));
      save_pretrained(context, trainer, golden.model(), out, {.dtype = in_file});

      const PretrainedReader saved(out);
      ModelConfig config = golden.model().config();
      config.weight_dtype = dtype;
      EXPECT_EQ(saved.config(), config);
      for (const MappedParameter& mapped : saved.parameters()) {
        const std::vector<float> want = as_saved(trainer.read(mapped.name), dtype);
        std::vector<float> got(want.size());
        saved.read(mapped.name, 0, mapped.shape.numel(), got.data());
        EXPECT_EQ(got, want) << mapped.name;
      }
      if (communicator.rank() != 0) continue;
      const std::vector<float> logits = logits_of(load_pretrained(out), golden.batch());
      EXPECT_NE(logits, golden.expected("logits")) << "it did not learn";
      if (keep != nullptr) keep_logits(out / "strata", logits, golden.batch().micro_batches[0]);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTraining, testing::ValuesIn(test::golden_models()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace strata
