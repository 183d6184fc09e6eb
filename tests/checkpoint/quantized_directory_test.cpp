// Models whose directory holds their weights quantised.
#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/quantized_file.h"
#include "checkpoint/quantized_values.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/text_runs.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

class QuantizedDirectory : public testing::TestWithParam<Dtype> {
 protected:
  QuantizedDirectory() : file_(directory_ / kQuantizedFile) {
    const PretrainedModel fresh = init_pretrained(config_, 7);
    const QuantizedFile layout(fresh.model(), {storage(), "a test"});
    DurableFile out(file_, layout.bytes());
    layout.write(fresh.source(), "a test", out, {});
    out.sync();
    out.publish();
    write_text_file(directory_ / "config.json", to_json(config_));
  }
  WeightStorage storage() const { return {Dtype::kF32, GetParam()}; }

  test::TemporaryDirectory directory_;
  fs::path file_;
  ModelConfig config_ = test::tiny_gpt2(true);
};

TEST_P(QuantizedDirectory, HoldsWhatQuantisingLeaves) {
  const PretrainedModel model = load_pretrained(directory_.path());
  ASSERT_TRUE(model.kept());
  EXPECT_EQ(model.kept()->weights, GetParam());
  const PretrainedModel fresh = init_pretrained(config_, 7);
  const ParameterSource want = quantized_values(fresh.source(), storage());
  for (int block = 0; block < model.model().block_count(); ++block) {
    for (const auto& parameter : model.model().block(block).parameters()) {
      const auto numel = static_cast<std::size_t>(parameter->shape.numel());
      std::vector<float> got(numel - 3), expected(numel - 3);  // from the middle of a group
      model.source()(parameter.get(), 3, got);
      want(fresh.model().find(parameter->name), 3, expected);
      EXPECT_EQ(got, expected) << parameter->name;
      EXPECT_EQ(model.locator()(parameter.get()).value().dtype, storage().of(*parameter));
    }
  }
}

TEST_P(QuantizedDirectory, IsGeneratedFromInPlace) {
  PretrainedModel fresh = init_pretrained(config_, 7);
  fresh.freeze_all();
  GeneratorOptions options = test::tiny_generator();
  options.weights = GetParam();
  options.sequence_tokens = 64;
  const std::vector<GenerationRequest> requests{test::greedy({1, 5, 9}, 20)};
  const auto want = test::generate(fresh, options, requests);
  PretrainedModel model = load_pretrained(directory_.path());
  model.freeze_all();
  options.residency = false;  // and no swap to copy anything to
  test::expect_same(test::generate(model, options, requests).results, want.results);
}

TEST_P(QuantizedDirectory, IsRefusedWhereItIsNotTheModels) {
  const std::string bytes = test::read_file(file_);
  const auto refused = [&](const std::vector<std::string>& words) {
    test::expect_message<FormatError>([&] { load_pretrained(directory_.path()); }, words);
  };
  const auto with = [&](const std::string& what, const std::string& other) {
    std::string changed = bytes;
    changed.replace(changed.find(what), what.size(), other);
    test::write_file(file_, changed);
  };
  const std::string kind{name(GetParam())};
  with("\"strata_weights\":\"" + kind, "\"strata_weights\":\"q5");
  refused({file_.string(), "strata_weights", "\"q5\"", "q8 and q4"});
  with("\"strata_version\":\"1", "\"strata_version\":\"7");
  refused({file_.string(), "version \"7\"", "reads version 1"});
  with("strata_weights", "others_weights");
  refused({file_.string(), "no strata_weights"});
  test::write_file(file_, bytes.substr(0, bytes.size() - 1));
  refused({file_.string(), "cut short"});
  test::write_file(file_, bytes.substr(0, 100));
  refused({file_.string()});
  test::write_file(file_, bytes);
  config_.layers += 1;
  write_text_file(directory_ / "config.json", to_json(config_));
  refused({file_.string(), "config.json"});
}

INSTANTIATE_TEST_SUITE_P(Kinds, QuantizedDirectory, testing::Values(Dtype::kQ8, Dtype::kQ4),
                         [](const auto& kind) { return std::string(name(kind.param)); });

}  // namespace
}  // namespace strata
