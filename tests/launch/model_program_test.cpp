#include <gtest/gtest.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "checkpoint/pretrained.h"
#include "core/model/config.h"
#include "core/text/tokenizer.h"
#include "tests/support/run_program.h"

namespace strata {
namespace {

ModelConfig small(const char* preset_name) {
  ModelConfig config = preset(preset_name);
  config.vocab_size = 257;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 4;
  config.head_size = 8;
  config.intermediate = 64;
  config.max_positions = 64;
  return config;
}

/// `strata init` and `strata inspect`, run on small models.
class ModelProgram : public testing::Test {
 protected:
  std::string path(const char* name) const { return (directory_ / name).string(); }

  static test::ProgramResult strata(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STRATA_PROGRAM);
    return test::run_program(arguments);
  }

  test::ProgramResult init(const char* preset_name, const char* out,
                           std::vector<std::string> more = {}) {
    test::write_file(directory_ / "shape.json", to_json(small(preset_name)));
    std::vector<std::string> arguments = {"init", "--config", path("shape.json"), "--out",
                                          path(out)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strata(arguments);
  }

  std::vector<float> read(const char* model, const char* parameter) const {
    const PretrainedReader reader(directory_ / model);
    for (const MappedParameter& mapped : reader.parameters()) {
      if (mapped.name != parameter) continue;
      std::vector<float> values(static_cast<std::size_t>(mapped.shape.numel()));
      reader.read(parameter, 0, mapped.shape.numel(), values.data());
      return values;
    }
    ADD_FAILURE() << "there is no " << parameter;
    return {};
  }

  static double deviation(const std::vector<float>& values) {
    double square = 0;
    for (const float value : values)
      square += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(square / static_cast<double>(values.size()));
  }

  test::TemporaryDirectory directory_;
};

TEST_F(ModelProgram, InitWritesTheInitialisationOfItsFamily) {
  ASSERT_EQ(init("gpt2-124m", "gpt2").exit_code, 0);
  EXPECT_NEAR(deviation(read("gpt2", "layers.0.mlp.up.weight")), 0.02, 0.002);
  EXPECT_NEAR(deviation(read("gpt2", "layers.1.attention.o.weight")), 0.01, 0.001)
      << "0.02 / sqrt(4)";
  for (const float value : read("gpt2", "layers.1.mlp_norm.weight")) ASSERT_EQ(value, 1.0f);
  for (const float value : read("gpt2", "layers.1.attention.q.bias")) ASSERT_EQ(value, 0.0f);
  ASSERT_EQ(init("llama-26m", "llama").exit_code, 0);
  EXPECT_NEAR(deviation(read("llama", "layers.1.attention.o.weight")), 0.02, 0.002);
}

TEST_F(ModelProgram, InitRepeatsEveryBitForTheSameSeed) {
  ASSERT_EQ(init("llama-26m", "a", {"--seed", "5"}).exit_code, 0);
  ASSERT_EQ(init("llama-26m", "b", {"--seed", "5"}).exit_code, 0);
  ASSERT_EQ(init("llama-26m", "c", {"--seed", "6"}).exit_code, 0);
  const auto weights = [this](const char* model) {
    return test::read_file(directory_ / model / "model.safetensors");
  };
  EXPECT_EQ(weights("a"), weights("b"));
  EXPECT_NE(weights("a"), weights("c"));
}

TEST_F(ModelProgram, InitRoundsTheSameNumbersToBf16) {
  ASSERT_EQ(init("llama-26m", "whole").exit_code, 0);
  ASSERT_EQ(init("llama-26m", "half", {"--dtype", "bf16"}).exit_code, 0);
  std::vector<float> rounded = read("whole", "head.weight");
  for (float& value : rounded) value = static_cast<float>(bf16(value));
  EXPECT_EQ(read("half", "head.weight"), rounded);
}

TEST_F(ModelProgram, InitWritesGroupsThatGenerateAsThoseOfTheCache) {
  ASSERT_EQ(init("llama-26m", "whole", {"--seed", "3"}).exit_code, 0);
  ASSERT_EQ(init("llama-26m", "groups", {"--seed", "3", "--weights", "int4"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "groups/model.safetensors"));
  const auto ids = [this](const char* model, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {
        "generate",         "--model", path(model), "--prompts", path("rows.jsonl"), "--greedy",
        "--max_new_tokens", "12",      "--compute", "fp32",      "--no_progress"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = strata(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return nlohmann::json::parse(result.output)["token_ids"];
  };
  test::write_file(directory_ / "rows.jsonl", "{\"prompt\": \"A few words\"}\n");
  const auto want = ids("whole", {"--weights", "int4", "--cache", path("cache")});
  EXPECT_EQ(ids("groups", {}), want);
  EXPECT_EQ(ids("groups", {"--residency", "none"}), want);
  const auto other = strata({"generate", "--model", path("groups"), "--weights", "int8", "--prompt",
                             "A", "--max_new_tokens", "1"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_NE(other.errors.find("int4 only"), std::string::npos) << other.errors;
  const auto refused = init("llama-26m", "whole", {"--weights", "int4", "--overwrite"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.errors.find("model.safetensors"), std::string::npos) << refused.errors;
}

TEST_F(ModelProgram, InitKeepsWhatLiesInTheOutputUnlessToldOtherwise) {
  test::write_file(directory_ / "full/notes", "precious");
  const auto refused = init("llama-26m", "full");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.errors.find("--overwrite"), std::string::npos) << refused.errors;
  EXPECT_FALSE(std::filesystem::exists(directory_ / "full/config.json"));
  EXPECT_EQ(init("llama-26m", "full", {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(test::read_file(directory_ / "full/notes"), "precious");
}

TEST_F(ModelProgram, InitRefusesModelsThatDoNotFitAndLeavesNothing) {
  const auto result = strata({"init", "--preset", "gpt-1t", "--out", path("deep/out")});
  if (result.errors.find("and its drive has") == std::string::npos) {
    GTEST_SKIP() << "this drive has room for a model of a trillion parameters";
  }
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "deep"));
}

TEST_F(ModelProgram, InitWritesATokenizerThatFitsTheVocabulary) {
  ASSERT_EQ(init("llama-26m", "bytes").exit_code, 0);
  EXPECT_EQ(read_tokenizer(directory_ / "bytes/tokenizer.json")->vocab_size(), 257);
  ASSERT_EQ(init("llama-26m", "copy", {"--tokenizer", path("bytes/tokenizer.json")}).exit_code, 0);
  EXPECT_EQ(test::read_file(directory_ / "copy/tokenizer.json"),
            test::read_file(directory_ / "bytes/tokenizer.json"));
  test::write_file(directory_ / "broken.json", "{}");
  const auto refused = init("llama-26m", "out", {"--tokenizer", path("broken.json")});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.errors.find("broken.json"), std::string::npos) << refused.errors;
  EXPECT_FALSE(std::filesystem::exists(directory_ / "out"));
}

TEST_F(ModelProgram, TokenizeShowsIdsAndTextsBothWays) {
  const std::string tokenizer =
      std::string(STRATA_SOURCE_DIR) + "/tests/golden/tokenizers/gpt2.json";
  const auto encoded = strata({"tokenize", "--model", tokenizer, "--text",
                               "the software<|endoftext|>", "--special", "--json"});
  ASSERT_EQ(encoded.exit_code, 0) << encoded.errors;
  const auto facts = nlohmann::json::parse(encoded.output);
  EXPECT_EQ(facts["text"], "the software<|endoftext|>");
  EXPECT_EQ(facts["pieces"].back()["text"], "<|endoftext|>");
  EXPECT_EQ(facts["ids"].size(), facts["pieces"].size());
  std::vector<std::string> back = {"tokenize", "--model", tokenizer, "--decode"};
  for (const auto& id : facts["ids"]) back.push_back(id.dump());
  EXPECT_EQ(strata(back).output, "the software<|endoftext|>\n");
  const auto refused = strata({"tokenize", "--model", tokenizer, "--decode", "12", "many"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.errors.find("\"many\""), std::string::npos) << refused.errors;
}

TEST_F(ModelProgram, TokenizeShowsHowARowIsUnderstood) {
  const std::string tokenizer =
      std::string(STRATA_SOURCE_DIR) + "/tests/golden/tokenizers/qwen2.json";
  const std::string chat =
      R"({"messages": [{"role": "user", "content": "free"}, {"role": "assistant", "content": "the"}]})";
  const auto shown = strata({"tokenize", "--model", tokenizer, "--row", chat, "--json"});
  ASSERT_EQ(shown.exit_code, 0) << shown.errors;
  const auto facts = nlohmann::json::parse(shown.output);
  EXPECT_EQ(facts["chat_template"], "chatml");
  EXPECT_EQ(facts["text"],
            "<|im_start|>user\nfree<|im_end|>\n<|im_start|>assistant\nthe<|im_end|>\n");
  std::string learnt;
  for (const auto& piece : facts["pieces"]) {
    if (piece["trained"]) learnt += piece["text"].get<std::string>();
  }
  EXPECT_EQ(learnt, "the<|im_end|>");
  const auto lines = strata({"tokenize", "--model", tokenizer, "--row", chat, "--chat_template",
                             "plain", "--train_on_inputs"});
  EXPECT_NE(lines.output.find("chat template plain"), std::string::npos) << lines.output;
  EXPECT_TRUE(lines.output.starts_with("+ ")) << lines.output;
  const auto refused = strata({"tokenize", "--model", tokenizer, "--row", "{\"prompt\": 1}"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.errors.find("--row: has the fields of no kind"), std::string::npos);
}

TEST_F(ModelProgram, InspectPrintsTheFactsOfAModel) {
  ASSERT_EQ(init("llama-26m", "model").exit_code, 0);
  const auto result = strata({"inspect", path("model"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto facts = nlohmann::json::parse(result.output);
  EXPECT_EQ(facts["family"], "llama");
  EXPECT_EQ(facts["tied"], false);
  // Two tables of 257 x 32, two layers of 4 x 32 x 32 + 3 x 32 x 64 + 2 x 32, a norm of 32.
  EXPECT_EQ(facts["parameters"], 2 * 257 * 32 + 2 * (4096 + 6144 + 64) + 32);
  EXPECT_EQ(facts["weight_bytes"], facts["parameters"].get<int>() * 4);
  EXPECT_EQ(facts["tensors"].size(), 2u + 2 * 9 + 1);
  EXPECT_EQ(facts["tensors"][0]["name"], "lm_head.weight");
  EXPECT_EQ(facts["tensors"][0]["dtype"], "F32");
  EXPECT_EQ(facts["tensors"][0]["shape"], (std::vector<int>{257, 32}));
  const auto lines = strata({"inspect", path("model")});
  EXPECT_NE(lines.output.find("lm_head.weight"), std::string::npos);
  EXPECT_EQ(strata({"inspect", path("model/config.json")}).exit_code, 0);
  EXPECT_EQ(strata({"inspect", path("model/model.safetensors")}).exit_code, 0);
}

TEST_F(ModelProgram, InspectNamesWhatIsWrongWithAModel) {
  ASSERT_EQ(init("llama-26m", "model").exit_code, 0);
  const std::string file = path("model/model.safetensors");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const auto result = strata({"inspect", path("model")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(result.errors.starts_with("strata: " + file)) << result.errors;
  EXPECT_EQ(result.output, "");
  EXPECT_EQ(strata({"inspect", path("nothing")}).exit_code, 2);
  EXPECT_EQ(strata({"inspect", directory_.path()}).exit_code, 2);
}

}  // namespace
}  // namespace strata
