#include "checkpoint/pretrained.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <thread>

#include "core/model/transformer.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::TemporaryDirectory;

const std::filesystem::path kGolden = std::filesystem::path(STRATA_SOURCE_DIR) / "tests/golden";

std::vector<float> whole(const SafetensorsReader& reader, const std::string& name) {
  const SafetensorsTensor& tensor = reader.at(name);
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  reader.read(tensor, 0, tensor.numel(), values.data());
  return values;
}

std::vector<float> whole(const PretrainedReader& model, const std::string& name,
                         std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  model.read(name, 0, count, values.data());
  return values;
}

/// Weights of a model that is too small to matter, by the names transformers gives them.
using Tensors = std::vector<std::pair<TensorDeclaration, std::vector<float>>>;

ModelConfig small_gpt2() {
  ModelConfig config = preset("gpt2-124m");
  config.vocab_size = 7;
  config.hidden = 4;
  config.layers = 1;
  config.heads = config.kv_heads = 2;
  config.head_size = 2;
  config.intermediate = 6;
  config.max_positions = 5;
  return config;
}

Tensors tensors_of(const ModelConfig& config) {
  Tensors tensors;
  float next = 0.0f;
  for (const MappedParameter& mapped : name_map(config)) {
    if (!tensors.empty() && std::any_of(tensors.begin(), tensors.end(), [&](const auto& tensor) {
          return tensor.first.name == mapped.source.hf_name;
        })) {
      continue;
    }
    const auto& shape = mapped.source.hf_shape;
    const auto count =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = next++;
    tensors.push_back({{mapped.source.hf_name, shape}, std::move(values)});
  }
  return tensors;
}

void save(const TemporaryDirectory& directory, const ModelConfig& config, const Tensors& tensors) {
  std::vector<TensorDeclaration> declarations;
  for (const auto& [declaration, values] : tensors) declarations.push_back(declaration);
  SafetensorsWriter writer(directory.path(), declarations, {.overwrite = true});
  for (const auto& [declaration, values] : tensors) writer.write(declaration.name, values);
  writer.finish();
  test::write_file(directory / "config.json", to_json(config));
}

void expect_refused(const ModelConfig& config, const Tensors& tensors,
                    const std::vector<std::string>& parts) {
  const TemporaryDirectory directory;
  save(directory, config, tensors);
  std::vector<std::string> all{directory.path()};
  all.insert(all.end(), parts.begin(), parts.end());
  test::expect_message<FormatError>([&] { PretrainedReader reader(directory.path()); }, all);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, IsReadInItsOwnConfigAndShapes) {
  const PretrainedReader model(kGolden / GetParam());
  EXPECT_EQ(model.config().vocab_size, 97);
  std::int64_t total = 0;
  for (const MappedParameter& mapped : model.parameters()) total += mapped.shape.numel();
  EXPECT_EQ(total, make_transformer(model.config()).parameter_count());
}

TEST_P(Golden, IsSavedToTheSameTensorsInPiecesOfAnySize) {
  const PretrainedReader model(kGolden / GetParam());
  const TemporaryDirectory directory;
  PretrainedWriter writer(directory / "out", model.config(), {.max_shard_bytes = 100'000});
  std::size_t piece = 1;
  for (const MappedParameter& mapped : model.parameters()) {
    const std::string& name = mapped.name;
    const std::vector<float> values = whole(model, name, mapped.shape.numel());
    for (std::size_t begin = 0; begin < values.size();) {
      piece = std::min(piece % 1999 + 97, values.size() - begin);
      writer.write(name, std::span(values).subspan(begin, piece));
      begin += piece;
    }
  }
  writer.finish();
  const SafetensorsReader again(directory / "out");
  ASSERT_EQ(again.tensors().size(), model.weights().tensors().size());
  for (const SafetensorsTensor& tensor : model.weights().tensors()) {
    EXPECT_EQ(again.at(tensor.name).shape, tensor.shape);
    EXPECT_EQ(whole(again, tensor.name), whole(model.weights(), tensor.name)) << tensor.name;
  }
  EXPECT_EQ(PretrainedReader(directory / "out").config(), model.config());
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         testing::Values("gpt2_tied", "gpt2_untied", "llama_untied", "llama_tied",
                                         "llama_llama3", "llama_linear", "llama_yarn", "opt_tied",
                                         "opt_post_norm", "mistral_window", "qwen2_tied",
                                         "qwen2_window", "qwen3_untied"),
                         [](const auto& p) { return std::string(p.param); });

TEST(NameMap, SplitsAndTransposesTheFusedProjectionOfGpt2) {
  const PretrainedReader model(kGolden / "gpt2_tied");
  const std::vector<float> fused = whole(model.weights(), "transformer.h.1.attn.c_attn.weight");
  const std::vector<float> bias = whole(model.weights(), "transformer.h.1.attn.c_attn.bias");
  for (const auto& [part, name] : {std::pair{0, "q"}, {1, "k"}, {2, "v"}}) {
    const std::string prefix = std::string("layers.1.attention.") + name;
    const std::vector<float> weight = whole(model, prefix + ".weight", 64 * 64);
    for (std::size_t out = 0; out < 64; ++out) {
      for (std::size_t in = 0; in < 64; ++in) {
        ASSERT_EQ(weight[out * 64 + in],
                  fused[in * 192 + static_cast<std::size_t>(part) * 64 + out]);
      }
    }
    const std::vector<float> part_bias = whole(model, prefix + ".bias", 64);
    EXPECT_TRUE(std::equal(part_bias.begin(), part_bias.end(), bias.begin() + part * 64));
  }
}

TEST(NameMap, ReadsEveryRangeOfATransposedParameter) {
  const TemporaryDirectory directory;
  const ModelConfig config = small_gpt2();
  save(directory, config, tensors_of(config));
  const PretrainedReader model(directory.path());
  for (const MappedParameter& mapped : model.parameters()) {
    const std::int64_t count = mapped.shape.numel();
    const std::vector<float> all = whole(model, mapped.name, count);
    for (std::int64_t begin = 0; begin <= count; ++begin) {
      for (std::int64_t end = begin; end <= count; ++end) {
        std::vector<float> part(static_cast<std::size_t>(end - begin) + 1, -1.0f);
        model.read(mapped.name, begin, end - begin, part.data());
        ASSERT_TRUE(std::equal(part.begin(), part.end() - 1, all.begin() + begin));
        ASSERT_EQ(part.back(), -1.0f);
      }
    }
  }
}

/// Wide enough for strips that are read row by row and for more than one block.
TEST(NameMap, ReadsRangesOfALargeTransposedParameter) {
  const TemporaryDirectory directory;
  ModelConfig config = small_gpt2();
  config.hidden = 32;
  config.head_size = 16;
  config.intermediate = 40'000;
  save(directory, config, tensors_of(config));
  const PretrainedReader model(directory.path());
  const std::vector<float> up = whole(model.weights(), "transformer.h.0.mlp.c_fc.weight");
  const std::vector<float> down = whole(model.weights(), "transformer.h.0.mlp.c_proj.weight");
  const std::int64_t count = 32 * 40'000;
  for (const auto& [begin, length] : {std::pair<std::int64_t, std::int64_t>{0, count},
                                      {5, 1000},
                                      {100'007, 400'001},
                                      {count - 3, 3}}) {
    std::vector<float> part(static_cast<std::size_t>(length));
    model.read("layers.0.mlp.up.weight", begin, length, part.data());
    for (std::int64_t e = 0; e < length; ++e) {  // up[out, in] = c_fc[in, out]
      const std::int64_t out = (begin + e) / 32, in = (begin + e) % 32;
      ASSERT_EQ(part[static_cast<std::size_t>(e)], up[static_cast<std::size_t>(in * 40'000 + out)]);
    }
    model.read("layers.0.mlp.down.weight", begin, length, part.data());
    for (std::int64_t e = 0; e < length; ++e) {
      const std::int64_t out = (begin + e) / 40'000, in = (begin + e) % 40'000;
      ASSERT_EQ(part[static_cast<std::size_t>(e)], down[static_cast<std::size_t>(in * 32 + out)]);
    }
  }
}

TEST(PretrainedReader, IsReadOnSeveralThreadsAtOnce) {
  const PretrainedReader model(kGolden / "gpt2_untied");
  const std::string name = "layers.0.mlp.up.weight";
  const std::vector<float> want = whole(model, name, 72 * 64);
  std::vector<std::vector<float>> got(4, std::vector<float>(want.size()));
  std::vector<std::jthread> threads;
  for (std::vector<float>& out : got) {
    threads.emplace_back([&] {
      for (std::int64_t begin = 0; begin < 72 * 64; begin += 96) {
        model.read(name, begin, 96, out.data() + begin);
      }
    });
  }
  threads.clear();
  for (const std::vector<float>& out : got) EXPECT_EQ(out, want);
}

TEST(NameMap, AcceptsFilesWithoutThePrefixAndWithOldBuffers) {
  const TemporaryDirectory directory;
  const ModelConfig config = small_gpt2();
  Tensors tensors = tensors_of(config);
  const std::vector<float> table = tensors.front().second;
  for (auto& [declaration, values] : tensors) {
    declaration.name.erase(0, std::string("transformer.").size());
  }
  tensors.push_back({{"h.0.attn.bias", {1, 1, 5, 5}}, std::vector<float>(25)});
  tensors.push_back({{"h.0.attn.masked_bias", {}}, std::vector<float>(1)});
  tensors.push_back({{"lm_head.weight", {7, 4}}, table});
  save(directory, config, tensors);
  const PretrainedReader model(directory.path());
  EXPECT_EQ(whole(model, "embedding.tokens.weight", 28), table);
}

TEST(NameMap, NamesTheTensorThatDoesNotFit) {
  const ModelConfig config = small_gpt2();
  const Tensors good = tensors_of(config);
  Tensors bad = good;
  bad.erase(bad.begin() + 3);
  expect_refused(config, bad, {"\"" + good[3].first.name + "\"", "missing"});
  bad = good;
  bad.push_back({{"transformer.h.1.ln_1.weight", {4}}, std::vector<float>(4)});
  expect_refused(config, bad, {"\"transformer.h.1.ln_1.weight\"", "no parameter", "1 layers"});
  bad = good;
  std::swap(bad[1].first.shape[0], bad[1].first.shape[1]);
  expect_refused(config, bad, {"\"transformer.wpe.weight\"", "[4, 5]", "[5, 4]"});
  bad = good;
  bad.push_back({{"lm_head.weight", {7, 4}}, std::vector<float>(28)});
  expect_refused(config, bad, {"\"lm_head.weight\"", "differs", "tie_word_embeddings"});
  ModelConfig untied = config;
  untied.tied = false;
  expect_refused(untied, good, {"\"lm_head.weight\"", "missing", "tie"});
}

TEST(PretrainedWriter, WritesBf16AndSaysSoInTheConfig) {
  const TemporaryDirectory directory;
  const ModelConfig config = small_gpt2();
  PretrainedWriter writer(directory / "out", config, {.dtype = Dtype::kBf16});
  for (const MappedParameter& mapped : name_map(config)) {
    std::vector<bf16> values(static_cast<std::size_t>(mapped.shape.numel()), bf16(0.5f));
    writer.write(mapped.name, values);
  }
  writer.finish();
  const PretrainedReader model(directory / "out");
  EXPECT_EQ(model.config().weight_dtype, Dtype::kBf16);
  EXPECT_EQ(whole(model, "layers.0.attention.k.weight", 16), std::vector<float>(16, 0.5f));
}

TEST(PretrainedWriter, NamesAParameterThatIsNotComplete) {
  const TemporaryDirectory directory;
  PretrainedWriter writer(directory / "out", small_gpt2(), {});
  const std::vector<float> values(40);
  writer.write("embedding.tokens.weight", std::span(values).first(28));
  EXPECT_THROW(writer.write("embedding.tokens.weight", std::span(values).first(1)), Error);
  EXPECT_THROW(writer.write("embedding.nothing", values), Error);
  test::expect_message<Error>([&] { writer.finish(); },
                              {directory.path(), "embedding.positions.weight"});
}

TEST(CompanionFiles, AreCopiedWhenTheyAreThere) {
  const TemporaryDirectory from, to;
  test::write_file(from / "tokenizer.json", "{\"a\": 1}");
  test::write_file(from / "model.safetensors", "x");
  copy_companion_files(from.path(), to.path());
  EXPECT_EQ(test::read_file(to / "tokenizer.json"), "{\"a\": 1}");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(to.path()), {}), 1);
}

}  // namespace
}  // namespace strata
