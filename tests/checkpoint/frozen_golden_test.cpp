// Ten steps with frozen parameters against torch with requires_grad=False, and what is saved then.
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/support/golden_model.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

constexpr int kSteps = 10;

nlohmann::json cases() {
  std::ifstream file(std::filesystem::path(STRATA_SOURCE_DIR) / "tests/golden/frozen_fixture.json");
  return nlohmann::json::parse(file).at("cases");
}

TrainerOptions torch_options(int ranks, Dtype compute) {
  TrainerOptions options;
  options.shape = {.micro_batches = 1, .sequences = 4 / ranks, .sequence_length = 33};
  options.adamw = {.weight_decay = 0.01};
  options.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1e-3};
  options.max_grad_norm = 1.0;
  options.placement.compute = compute;
  return options;
}

/// A model as it lies in tests/golden, part of it frozen.
PretrainedModel load(const std::string& name, const ParameterPatterns& patterns) {
  PretrainedModel model = load_pretrained(test::golden_directory(name));
  model.freeze(patterns);
  return model;
}

ParameterPatterns patterns_of(const nlohmann::json& one) {
  return {one.at("freeze"), one.at("train")};
}

/// Calls body(context, trainer, losses, norms) on every rank after the ten steps.
template <typename Body>
void train(const test::GoldenModel& golden, const PretrainedModel& model,
           const TrainerOptions& options, int ranks, Body&& body) {
  test::run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const Context context{*device, communicator, log};
    Trainer trainer(context, model.model(), options, model.source());
    std::vector<double> losses, norms;
    for (int step = 0; step < kSteps; ++step) {
      const StepReport report =
          trainer.step(golden.training_batch(step, 1, communicator.rank(), ranks));
      losses.push_back(report.loss);
      norms.push_back(report.gradient_norm);
    }
    body(context, trainer, losses, norms);
  });
}

TEST(FrozenGolden, FollowsTorchForTenStepsWhereverTheStateRests) {
  const test::TemporaryDirectory swap;
  for (const nlohmann::json& one : cases()) {
    const std::string name = one.at("model");
    const test::GoldenModel golden(name);
    const PretrainedModel model = load(name, patterns_of(one));
    SCOPED_TRACE(one.at("freeze").dump() + one.at("train").dump() + " of " + name);
    EXPECT_EQ(model.model().trainable_count(), one.at("trained").get<std::int64_t>());
    const std::vector<double> losses = one.at("losses"), norms = one.at("gradient_norms");
    for (const int ranks : {1, 2}) {
      for (const bool streamed : {false, true}) {
        TrainerOptions options = torch_options(ranks, Dtype::kF32);
        if (streamed) {
          options.placement.swap = {{.path = swap.path()}};
          options.placement.residency = false;
        }
        train(golden, model, options, ranks,
              [&](const Context&, Trainer&, const auto& got_losses, const auto& got_norms) {
                for (std::size_t step = 0; step < kSteps; ++step) {
                  EXPECT_NEAR(got_losses[step], losses[step], 1e-5 * losses[step]) << step;
                  EXPECT_NEAR(got_norms[step], norms[step], 1e-4 * norms[step]) << step;
                }
              });
      }
    }
  }
}

TEST(FrozenGolden, SavesWhatStayedEveryBitAlsoAfterBf16) {
  for (const auto& [name, patterns] :
       {std::pair{"llama_untied", ParameterPatterns{.freeze = {"*self_attn*", "*embed*"}}},
        std::pair{"gpt2_tied", ParameterPatterns{.train = {"*ln_*", "*.c_fc.bias"}}}}) {
    const test::GoldenModel golden(name);
    const PretrainedModel model = load(name, patterns);
    for (const Dtype compute : {Dtype::kF32, Dtype::kBf16}) {
      const test::TemporaryDirectory out;
      train(golden, model, torch_options(2, compute), 2,
            [&](const Context& context, Trainer& trainer, const auto&, const auto&) {
              save_pretrained(context, trainer, model, out.path());
            });
      const PretrainedReader saved(out.path()), source(test::golden_directory(name));
      for (const MappedParameter& mapped : saved.parameters()) {
        std::vector<float> got(static_cast<std::size_t>(mapped.shape.numel())), start = got;
        saved.read(mapped.name, 0, mapped.shape.numel(), got.data());
        source.read(mapped.name, 0, mapped.shape.numel(), start.data());
        EXPECT_EQ(got == start, model.model().find(mapped.name)->frozen) << mapped.name;
      }
    }
  }
}

}  // namespace
}  // namespace strata
