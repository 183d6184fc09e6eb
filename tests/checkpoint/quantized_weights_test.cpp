// Weights that are quantised once.
#include "checkpoint/quantized_weights.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <limits>
#include <thread>

#include <nlohmann/json.hpp>

#include "checkpoint/quantized_values.h"
#include "checkpoint/safetensors.h"
#include "core/cache.h"
#include "core/group_quantization.h"
#include "core/json_file.h"
#include "parallel/rounding.h"
#include "tests/support/files.h"
#include "tests/support/golden_model.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

/// A copy of a golden model that a test may change, and a cache.
class QuantizedWeights : public testing::Test {
 protected:
  void use(const std::string& name) {
    fs::remove_all(directory_ / "model");
    fs::copy(test::golden_directory(name), directory_ / "model");
  }
  PretrainedModel load() const {
    PretrainedModel model = load_pretrained(directory_ / "model");
    model.freeze_all();
    return model;
  }
  fs::path cache() const { return directory_ / "cache"; }
  /// Counts in made_ what had to be made.
  ParameterLocator open(const PretrainedModel& model, const WeightStorage& storage) {
    return quantized_weights(model, storage, cache(), [&](std::uint64_t done, std::uint64_t all) {
      if (done == 0) ++made_;
      EXPECT_LE(done, all);
    });
  }
  std::vector<CacheEntry> entries() const { return list_cache(cache()); }
  fs::path only_entry() const {
    EXPECT_EQ(entries().size(), 1u);
    return entries().front().directory;
  }

  test::TemporaryDirectory directory_;
  std::atomic<int> made_{0};
  const WeightStorage q4_{Dtype::kF32, Dtype::kQ4};
};

std::vector<std::byte> bytes_at(const StoredParameter& stored, std::int64_t numel) {
  std::vector<std::byte> bytes(storage_bytes(stored.dtype, numel));
  ReadableFile(stored.path).read(stored.offset, bytes);
  return bytes;
}

/// What the file should have of a parameter, quantised in one piece.
std::vector<std::byte> expected_bytes(const PretrainedModel& model, const ParameterSpec& parameter,
                                      const WeightStorage& storage) {
  const std::int64_t numel = parameter.shape.numel();
  const Dtype dtype = storage.of(parameter);
  std::vector<float> values(static_cast<std::size_t>(numel));
  model.source()(&parameter, 0, values);
  std::vector<std::byte> bytes(storage_bytes(dtype, numel));
  if (is_quantized(dtype)) {
    quantize(values, dtype, bytes.data());
  } else {
    round_to({values.data(), Dtype::kF32, {numel}}, {bytes.data(), dtype, {numel}});
  }
  return bytes;
}

TEST_F(QuantizedWeights, AreTheSourceQuantized) {
  for (const char* name : {"gpt2_untied", "llama_tied"}) {
    use(name);
    const PretrainedModel model = load();
    for (const WeightStorage& storage : {q4_, WeightStorage{Dtype::kBf16, Dtype::kQ8}}) {
      SCOPED_TRACE(name);
      const ParameterLocator locator = open(model, storage);
      int quantized = 0;
      fs::path file;
      for (int i = 0; i < model.model().block_count(); ++i) {
        for (const auto& parameter : model.model().block(i).parameters()) {
          const std::optional<StoredParameter> stored = locator(parameter.get());
          ASSERT_TRUE(stored) << parameter->name;
          EXPECT_EQ(stored->dtype, storage.of(*parameter)) << parameter->name;
          EXPECT_EQ(stored->offset % 4096, 0u) << parameter->name;
          EXPECT_EQ(bytes_at(*stored, parameter->shape.numel()),
                    expected_bytes(model, *parameter, storage))
              << parameter->name;
          quantized += is_quantized(stored->dtype) ? 1 : 0;
          file = stored->path;
        }
      }
      EXPECT_GT(quantized, 0);
      EXPECT_EQ(fs::file_size(file), quantized_weights_bytes(model.model(), storage));
    }
  }
  EXPECT_EQ(made_, 4);
  EXPECT_EQ(entries().size(), 4u);
}

TEST_F(QuantizedWeights, AreMadeInPieces) {
  ModelConfig config = preset("llama-26m");
  config.vocab_size = 40000;  // 2.56 million elements of a table
  config.hidden = 64;
  config.layers = 1;
  config.heads = config.kv_heads = 1;
  config.head_size = 64;
  config.intermediate = 64;
  const PretrainedModel fresh = init_pretrained(config, 1);
  PretrainedWriter writer(directory_ / "model", config, {.dtype = Dtype::kBf16});
  for (const MappedParameter& mapped : name_map(config)) {
    std::vector<float> values(static_cast<std::size_t>(mapped.shape.numel()));
    fresh.source()(fresh.model().find(mapped.name), 0, values);
    writer.write(mapped.name, std::span<const float>(values));
  }
  writer.finish();
  const PretrainedModel model = load();
  std::vector<std::uint64_t> steps;
  const ParameterLocator locator = quantized_weights(
      model, q4_, cache(), [&](std::uint64_t done, std::uint64_t) { steps.push_back(done); });
  EXPECT_GT(steps.size(), 2u);
  EXPECT_TRUE(std::ranges::is_sorted(steps));
  for (int i = 0; i < model.model().block_count(); ++i) {
    for (const auto& parameter : model.model().block(i).parameters()) {
      EXPECT_TRUE(bytes_at(*locator(parameter.get()), parameter->shape.numel()) ==
                  expected_bytes(model, *parameter, q4_))
          << parameter->name;
    }
  }
}

TEST_F(QuantizedWeights, LieInASafetensorsFile) {
  use("llama_tied");
  const PretrainedModel model = load();
  open(model, q4_);
  const fs::path file = only_entry() / "weights.bin";
  const fs::path link = directory_ / "weights.safetensors";
  fs::create_symlink(file, link);
  const SafetensorsReader reader(link);
  for (int i = 0; i < model.model().block_count(); ++i) {
    for (const auto& parameter : model.model().block(i).parameters()) {
      const SafetensorsTensor& tensor = reader.at(parameter->name);
      const Dtype dtype = q4_.of(*parameter);
      EXPECT_STREQ(tensor.type->name, is_quantized(dtype) ? "U8" : "F32");
      EXPECT_EQ(tensor.shape.front(), parameter->shape[0]);
      EXPECT_EQ(tensor.bytes, storage_bytes(dtype, parameter->shape.numel()));
    }
  }
  EXPECT_NE(test::read_file(file).find(R"("strata_weights":"q4")"), std::string::npos);
}

TEST_F(QuantizedWeights, AreMadeOnce) {
  use("llama_tied");
  const PretrainedModel model = load();
  open(model, q4_);
  const fs::path file = only_entry() / "weights.bin";
  const auto changed = fs::last_write_time(file);
  {
    const ParameterLocator locator = open(load(), q4_);
    EXPECT_TRUE(entries().front().in_use) << "as long as the locator lives";
  }
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(fs::last_write_time(file), changed);
  const CacheEntry entry = entries().front();
  EXPECT_TRUE(entry.complete);
  EXPECT_FALSE(entry.in_use);
  EXPECT_NE(entry.description.find("model in q4"), std::string::npos) << entry.description;
  EXPECT_GT(entry.bytes, fs::file_size(file));
  remove_entry(entry);
  EXPECT_TRUE(entries().empty());
  open(model, q4_);
  EXPECT_EQ(made_, 2);
}

TEST_F(QuantizedWeights, OfAModelThatChangedAreMadeAnew) {
  use("llama_tied");
  open(load(), q4_);
  const fs::path weights = directory_ / "model" / "model.safetensors";
  std::string bytes = test::read_file(weights);
  const auto changed = fs::last_write_time(weights);
  bytes[bytes.size() - 2] ^= 1;  // the same header, another value
  test::write_file(weights, bytes);
  fs::last_write_time(weights, changed + std::chrono::seconds(1));
  const PretrainedModel model = load();
  const ParameterLocator locator = open(model, q4_);
  EXPECT_EQ(made_, 2);
  EXPECT_EQ(entries().size(), 2u);
  for (int i = 0; i < model.model().block_count(); ++i) {
    for (const auto& parameter : model.model().block(i).parameters()) {
      EXPECT_EQ(bytes_at(*locator(parameter.get()), parameter->shape.numel()),
                expected_bytes(model, *parameter, q4_));
    }
  }
  fs::rename(directory_ / "model", directory_ / "elsewhere");
  quantized_weights(
      load_pretrained(directory_ / "elsewhere"), q4_, cache(),
      [&](std::uint64_t, std::uint64_t) { ADD_FAILURE() << "where it lies is equal"; });
}

TEST_F(QuantizedWeights, ThatAreNotWholeAreMadeAnew) {
  use("llama_tied");
  const PretrainedModel model = load();
  open(model, q4_);
  const fs::path entry = only_entry();
  const std::string whole = test::read_file(entry / "weights.bin");
  int made = 1;
  const auto expect_made = [&] {
    open(model, q4_);
    EXPECT_EQ(made_, ++made);
    EXPECT_TRUE(test::read_file(entry / "weights.bin") == whole);
    EXPECT_TRUE(fs::exists(entry / "entry.json"));
  };
  fs::remove(entry / "entry.json");
  test::write_file(entry / "weights.bin", "interrupted");
  test::write_file(entry / ".weights.bin.partial", std::string(whole.size() + 1, 'x'));
  expect_made();
  EXPECT_FALSE(fs::exists(entry / ".weights.bin.partial"));
  fs::resize_file(entry / "weights.bin", whole.size() - 1);
  expect_made();
  std::string other = whole;
  other[20] ^= 1;  // in the header
  test::write_file(entry / "weights.bin", other);
  expect_made();
  fs::remove(entry / "weights.bin");
  expect_made();
  test::write_file(entry / "entry.json", "{");
  expect_made();
}

TEST_F(QuantizedWeights, OfAnotherVersionAreRefused) {
  use("llama_tied");
  const PretrainedModel model = load();
  open(model, q4_);
  const fs::path facts = only_entry() / "entry.json";
  auto entry = nlohmann::json::parse(test::read_file(facts));
  entry["version"] = 99;
  write_json_file(facts, entry);
  test::expect_message<FormatError>([&] { open(model, q4_); },
                                    {facts.string(), "version 99", "strata clean --remove"});
  EXPECT_EQ(made_, 1);
}

TEST_F(QuantizedWeights, AreMadeByOneOfManyThatWantThem) {
  use("gpt2_untied");
  std::vector<std::thread> threads;
  threads.reserve(6);
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([this] {
      const PretrainedModel model = load();
      const ParameterLocator locator = open(model, q4_);
      const ParameterSpec& first = *model.model().block(0).parameters()[0];
      EXPECT_EQ(bytes_at(*locator(&first), first.shape.numel()), expected_bytes(model, first, q4_));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made_, 1);
}

TEST_F(QuantizedWeights, SayWhatKeptThemFromBeingMade) {
  use("llama_tied");
  const PretrainedModel model = load();
  test::write_file(directory_ / "file", "");
  test::expect_message<IoError>(
      [&] { quantized_weights(model, q4_, directory_ / "file" / "below"); },
      {(directory_ / "file").string(), "--cache"});

  // A file that may not grow is a drive without room.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 8192;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  try {
    open(model, q4_);
    ADD_FAILURE() << "there is no room";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("--cache"), std::string::npos) << error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(made_, 0) << "known before the work";
  ASSERT_EQ(entries().size(), 1u);
  EXPECT_FALSE(entries().front().complete);
}

TEST_F(QuantizedWeights, HaveNoValueThatIsNotFinite) {
  use("llama_tied");
  const fs::path weights = directory_ / "model" / "model.safetensors";
  const SafetensorsReader reader(weights);
  const auto* tensor = reader.find("model.layers.1.mlp.up_proj.weight");
  ASSERT_NE(tensor, nullptr);
  ASSERT_STREQ(tensor->type->name, "F32");
  std::string bytes = test::read_file(weights);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + tensor->begin + 40, &nan, sizeof nan);
  test::write_file(weights, bytes);
  test::expect_message<FormatError>([&] { open(load(), q4_); },
                                    {(directory_ / "model").string(), "layers.1.", "element 10"});
  EXPECT_FALSE(entries().front().complete);
  EXPECT_FALSE(fs::exists(entries().front().directory / "weights.bin"));
}

TEST_F(QuantizedWeights, HaveTheValuesThatModelsAreEvaluatedWith) {
  use("llama_tied");
  const PretrainedModel model = load();
  const WeightStorage storage{Dtype::kF32, Dtype::kQ4};
  const ParameterLocator locator = open(model, storage);
  const ParameterSource values = quantized_values(model.source(), storage);
  const Parameter matrix = model.model().find("layers.1.mlp.up.weight");
  ASSERT_NE(matrix, nullptr);
  const StoredParameter stored = locator(matrix).value();
  ASSERT_EQ(stored.dtype, Dtype::kQ4);
  const std::string bytes = test::read_file(stored.path).substr(stored.offset);
  std::vector<float> want(static_cast<std::size_t>(matrix->shape.numel()));
  dequantize(reinterpret_cast<const std::byte*>(bytes.data()), stored.dtype, want);
  // Anywhere, not only whole groups.
  for (const auto& [begin, count] : {std::pair{0, 64}, {0, 1}, {63, 2}, {100, 300}, {1, 128}}) {
    std::vector<float> got(static_cast<std::size_t>(count));
    values(matrix, begin, got);
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin() + begin)) << begin;
  }
  const Parameter norm = model.model().find("layers.1.mlp_norm.weight");
  ASSERT_NE(norm, nullptr);
  std::vector<float> as_they_are(8), got(8);
  model.source()(norm, 3, as_they_are);
  values(norm, 3, got);
  EXPECT_EQ(got, as_they_are);
}

}  // namespace
}  // namespace strata
