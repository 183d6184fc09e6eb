#include <gtest/gtest.h>

#include "core/error.h"
#include "launch/generation_bench/runner.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

PretrainedModel small_model() {
  ModelConfig config = preset("opt-125m");
  config.vocab_size = 300;
  config.hidden = 64;
  config.heads = config.kv_heads = 4;
  config.head_size = 16;
  config.intermediate = 256;
  config.layers = 3;
  config.max_positions = 128;
  PretrainedModel model = init_pretrained(config, 1);
  model.freeze_all();
  return model;
}

GenerationSetup small_setup() {
  GenerationSetup setup;
  setup.model = "small";
  setup.tier.name = "dram";
  setup.prompt = 20;
  setup.generated = 5;
  setup.dram_bytes = std::uint64_t{1} << 30;
  setup.machine.memory_read = 10e9;
  setup.machine.products_bf16 = 100e9;
  return setup;
}

class GenerationCells : public testing::Test {
 protected:
  std::vector<GenerationCell> run(const GenerationSetup& setup,
                                  const std::vector<std::int64_t>& batches) {
    return run_generation_cells({*device_, *alone_, log_}, model_, setup, batches, energy_,
                                [this](const std::string& text) { said_.push_back(text); });
  }

  PretrainedModel model_ = small_model();
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  Log log_{1};
  EnergyRecorder energy_{{.power_command = "echo 10"}};
  std::vector<std::string> said_;
};

TEST_F(GenerationCells, MeasureEveryBatchInMemory) {
  const std::vector<GenerationCell> cells = run(small_setup(), {1, 3});
  ASSERT_EQ(cells.size(), 2u);
  for (const GenerationCell& cell : cells) {
    ASSERT_TRUE(cell.measured.has_value()) << cell.refusal;
    const GenerationMeasurement& measured = *cell.measured;
    EXPECT_EQ(measured.tokens, 5 * cell.what.shape.batch);
    EXPECT_EQ(measured.prompt_tokens, 20 * cell.what.shape.batch);
    EXPECT_EQ(measured.bytes_read, 0) << "nothing streams";
    EXPECT_GT(measured.prefill_seconds, 0);
    EXPECT_GT(measured.decode_seconds, 0);
    EXPECT_LE(measured.prefill_seconds + measured.decode_seconds, measured.seconds);
    EXPECT_GT(measured.roofline_seconds, 0);
    EXPECT_GE(measured.joules.value(), 10 * measured.seconds * 0.9);
    EXPECT_EQ(cell.what.model, "small");
    EXPECT_EQ(cell.parameters, static_cast<double>(model_.model().parameter_count()));
  }
  EXPECT_FALSE(said_.empty());
}

TEST_F(GenerationCells, StreamEveryWeightInEveryPassFromADrive) {
  const test::TemporaryDirectory directory;
  GenerationSetup setup = small_setup();
  setup.tier = {
      .name = "fast", .directory = directory.path(), .device = "", .link = "", .read = 1e9};
  setup.drive_bytes = std::uint64_t{1} << 30;
  const std::vector<GenerationCell> cells = run(setup, {2});
  ASSERT_TRUE(cells.at(0).measured.has_value()) << cells.at(0).refusal;
  // Five passes, each of which reads layers and the table, in bf16.
  const double weights = 2.0 * static_cast<double>(model_.model().parameter_count());
  EXPECT_GT(cells[0].measured->bytes_read, 5 * 0.8 * weights);
  EXPECT_EQ(cells[0].measured->bound, GenerationBound::kStream);
  setup.weights = "int4";
  const std::vector<GenerationCell> fewer = run(setup, {2});
  ASSERT_TRUE(fewer.at(0).measured.has_value()) << fewer.at(0).refusal;
  EXPECT_LT(fewer[0].measured->bytes_read, 0.6 * cells[0].measured->bytes_read);
}

TEST_F(GenerationCells, TakeAsLongAsTheDriveThatIsEmulated) {
  const test::TemporaryDirectory directory;
  GenerationSetup setup = small_setup();
  setup.tier = {.name = "slow", .directory = directory.path()};
  setup.tier.read_limit = 4e6;
  setup.drive_bytes = std::uint64_t{1} << 30;
  const std::vector<GenerationCell> cells = run(setup, {1});
  ASSERT_TRUE(cells.at(0).measured.has_value()) << cells.at(0).refusal;
  const GenerationMeasurement& measured = *cells[0].measured;
  EXPECT_GE(measured.seconds, 0.7 * measured.bytes_read / 4e6);
}

TEST_F(GenerationCells, SayWhatTheyWouldHaveNeeded) {
  GenerationSetup setup = small_setup();
  const std::uint64_t for_one = find_misfit(
                                    model_,
                                    [&] {
                                      GenerationSetup none = setup;
                                      none.dram_bytes = 0;
                                      return none;
                                    }(),
                                    1)
                                    .value()
                                    .need;
  setup.dram_bytes = for_one;
  const std::vector<GenerationCell> cells = run(setup, {1, 64});
  EXPECT_TRUE(cells.at(0).measured.has_value()) << cells.at(0).refusal;
  ASSERT_TRUE(cells.at(1).misfit.has_value());
  EXPECT_FALSE(cells[1].measured.has_value());
  EXPECT_EQ(cells[1].misfit->what, "memory");
  EXPECT_EQ(cells[1].misfit->have, for_one);
  // 63 more texts of one page: 64 tokens, 3 layers, keys and values of 64 bf16 elements.
  EXPECT_GE(cells[1].misfit->need - for_one, 63u * 64 * 3 * 2 * 64 * 2);
  const test::TemporaryDirectory directory;
  GenerationSetup full = small_setup();
  full.tier = {.name = "full", .directory = directory.path()};
  full.drive_bytes = 1000;
  const auto misfit = find_misfit(model_, full, 1);
  ASSERT_TRUE(misfit.has_value());
  EXPECT_EQ(misfit->what, "drive");
  EXPECT_EQ(misfit->have, 1000u);
}

TEST_F(GenerationCells, SayWhyTheyWereNotRun) {
  GenerationSetup setup = small_setup();
  setup.prompt = 1000;  // positions end at 128
  const std::vector<GenerationCell> cells = run(setup, {1});
  EXPECT_FALSE(cells.at(0).measured.has_value());
  EXPECT_FALSE(cells[0].refusal.empty());
}

TEST_F(GenerationCells, HaveNoRooflineWithoutRates) {
  GenerationSetup setup = small_setup();
  setup.machine.memory_read = 0;
  const std::vector<GenerationCell> cells = run(setup, {1});
  ASSERT_TRUE(cells.at(0).measured.has_value());
  EXPECT_EQ(cells[0].measured->roofline_seconds, 0);
}

TEST(GenerationRunner, KnowsFormats) {
  EXPECT_EQ(storage_of("bf16", "bf16").compute, Dtype::kBf16);
  EXPECT_EQ(storage_of("fp32", "fp32").compute, Dtype::kF32);
  EXPECT_EQ(storage_of("int4", "bf16").compute, Dtype::kBf16);
  EXPECT_EQ(storage_of("int4", "int8").compute, Dtype::kBf16);
  EXPECT_EQ(storage_of("fp32", "int4").compute, Dtype::kF32);
  EXPECT_EQ(storage_of("int4", "bf16").weights, Dtype::kQ4);
  test::expect_message<UsageError>([] { storage_of("int3", "int3"); }, {"--weights", "int3"});
  test::expect_message<UsageError>([] { storage_of("bf16", "fp32"); }, {"--kv", "fp32"});
}

TEST(GenerationRunner, TakesTheMiddleOfSeveralRounds) {
  EXPECT_EQ(median({{.seconds = 3}, {.seconds = 1}, {.seconds = 2}}).seconds, 2);
  EXPECT_EQ(median({{.seconds = 3}, {.seconds = 1}}).seconds, 1);
  EXPECT_THROW(median({}), Error);
}

}  // namespace
}  // namespace strata
