#include "checkpoint/pretrained_model.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <functional>

#include "optimizer/split.h"
#include "tests/support/files.h"
#include "tests/support/golden_model.h"
#include "tests/support/messages.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using test::TemporaryDirectory;

/// Two ranks with a trainer of `model` each.
void on_two_ranks(const PretrainedModel& model,
                  const std::function<void(const Context&, Trainer&)>& body) {
  test::run_on_threads(2, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const Context context{*device, communicator, log};
    TrainerOptions options;
    options.shape = {.micro_batches = 1, .sequences = 1, .sequence_length = 8};
    options.placement.compute = Dtype::kF32;
    Trainer trainer(context, model.model(), options, model.source());
    body(context, trainer);
  });
}

PretrainedModel golden(const std::string& name) {
  return load_pretrained(test::golden_directory(name));
}

bool is_empty(const TemporaryDirectory& directory) { return fs::is_empty(directory.path()); }

TEST(PretrainedModel, StaysWhereItIsWhenItMoves) {
  PretrainedModel model = golden("gpt2_tied");
  const Model* address = &model.model();
  const PretrainedModel moved = std::move(model);
  EXPECT_EQ(&moved.model(), address);
}

TEST(PretrainedModel, ReadsTextOnlyWhereThereIsATokenizerOfItsVocabulary) {
  PretrainedModel model = golden("gpt2_tied");
  test::expect_message<UsageError>([&] { model.tokenizer(); },
                                   {model.directory() / "tokenizer.json", "is not there"});

  const TemporaryDirectory copy;
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy_file(model.directory() / name, copy / name);
  }
  test::write_file(copy / "tokenizer.json", byte_tokenizer_json());
  PretrainedModel small = load_pretrained(copy.path());
  test::expect_message<FormatError>([&] { small.tokenizer(); },
                                    {copy / "tokenizer.json", "257 tokens", "97"});

  PretrainedModel fresh = init_pretrained(preset("llama-26m"), 1);
  EXPECT_EQ(fresh.tokenizer().encode("a"), std::vector<std::int32_t>{'a'});
}

TEST(PretrainedModel, IsRefusedWithTheNameOfTheFileAtFault) {
  const TemporaryDirectory empty;
  test::expect_message<FormatError>([&] { load_pretrained(empty.path()); },
                                    {(empty / "config.json").string(), "is not there", "init"});
  ModelConfig config = preset("llama-26m");
  config.kv_heads = config.heads + 1;
  EXPECT_THROW(init_pretrained(config, 1), FormatError);
}

TEST(SavePretrained, RoundsToBf16AsTrainingDoes) {
  const PretrainedModel model = golden("llama_tied");
  const TemporaryDirectory directory;
  const std::string name = "layers.0.attention.o.weight";
  on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
    std::vector<float> values = trainer.read(name);
    values[0] = 1.00390625f;  // halfway between two bf16; the even one is the smaller
    values[1] = -1.00390625f;
    trainer.write(name, values);
    save_pretrained(context, trainer, model, directory / "out", {.dtype = SaveDtype::kBf16});
    const PretrainedReader saved(directory / "out");
    EXPECT_EQ(saved.config().weight_dtype, Dtype::kBf16);
    std::vector<float> got(values.size());
    saved.read(name, 0, static_cast<std::int64_t>(got.size()), got.data());
    EXPECT_EQ(got[0], 1.0078125f);
    EXPECT_EQ(got[1], -1.0078125f);
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], join(split(values[i]).hi, 0)) << i;
    }
  });
}

TEST(SavePretrained, KeepsTheDtypeOfTheSourceUnlessAsked) {
  for (const auto& [source, saved] : {std::pair{Dtype::kF32, Dtype::kF32},
                                      {Dtype::kBf16, Dtype::kBf16},
                                      {Dtype::kF16, Dtype::kF16}}) {
    ModelConfig config = golden("llama_tied").config();
    config.weight_dtype = source;
    const PretrainedModel model = init_pretrained(config, 3);
    const TemporaryDirectory directory;
    on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
      save_pretrained(context, trainer, model, directory / "out");
    });
    EXPECT_EQ(load_pretrained(directory / "out").config().weight_dtype, saved);
  }
}

TEST(SavePretrained, KeepsTheDropoutOfTheSourceWhateverWasTrainedWith) {
  const TemporaryDirectory directory;
  ModelConfig config = golden("gpt2_tied").config();
  config.dropout = {.embedding = 0.1f, .residual = 0.2f, .attention = 0.3f};
  const PretrainedModel fresh = init_pretrained(config, 3);
  on_two_ranks(fresh, [&](const Context& context, Trainer& trainer) {
    save_pretrained(context, trainer, fresh, directory / "source");
  });
  const PretrainedModel model = load_pretrained(directory / "source", {.rate = 0.5});
  on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
    save_pretrained(context, trainer, model, directory / "out");
  });
  EXPECT_EQ(read_config(directory / "out/config.json").dropout, config.dropout);
}

TEST(SavePretrained, RoundsMastersOfAFp16ModelAndRefusesWhatIsBeyondItsRange) {
  ModelConfig config = golden("gpt2_tied").config();  // has tensors that are assembled
  config.weight_dtype = Dtype::kF16;
  const PretrainedModel model = init_pretrained(config, 3);
  const TemporaryDirectory directory;
  const std::unique_ptr<Device> device = make_cpu_device(1);
  const std::unique_ptr<Communicator> self = make_self_communicator();
  Log log(1);
  const Context context{*device, *self, log};
  TrainerOptions options;
  options.shape = {.micro_batches = 1, .sequences = 1, .sequence_length = 8};
  options.placement.compute = Dtype::kF16;
  Trainer trainer(context, model.model(), options, model.source());
  save_pretrained(context, trainer, model, directory / "out");
  const PretrainedReader saved(directory / "out");
  EXPECT_STREQ(saved.weights().tensors().front().type->name, "F16");
  for (const MappedParameter& mapped : saved.parameters()) {
    std::vector<float> want = trainer.read(mapped.name);
    for (float& value : want) value = static_cast<float>(f16(value));
    std::vector<float> got(want.size());
    saved.read(mapped.name, 0, static_cast<std::int64_t>(got.size()), got.data());
    EXPECT_EQ(got, want) << mapped.name;
  }
  const std::string large = "layers.1.mlp.up.weight";
  std::vector<float> values = trainer.read(large);
  values[7] = 7e4f;
  trainer.write(large, values);
  test::expect_message<UsageError>(
      [&] { save_pretrained(context, trainer, model, directory / "more"); },
      {"tensor \"", "70000", "fp16"});
  EXPECT_FALSE(fs::exists(directory / "more"));
}

TEST(SavePretrained, BringsTheTokenizerAlong) {
  const PretrainedModel source = golden("gpt2_untied");
  const TemporaryDirectory directory;
  fs::copy(source.directory(), directory / "in");
  test::write_file(directory / "in" / "tokenizer.json", "{\"any\": 1}");
  test::write_file(directory / "in" / "generation_config.json", "{}");
  const PretrainedModel model = load_pretrained(directory / "in");
  on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
    save_pretrained(context, trainer, model, directory / "deep" / "out");
  });
  const fs::path out = directory / "deep" / "out";
  EXPECT_EQ(test::read_file(out / "tokenizer.json"), "{\"any\": 1}");
  EXPECT_TRUE(fs::exists(out / "generation_config.json"));
  EXPECT_FALSE(fs::exists(out / "expectations.safetensors"));

  const PretrainedModel fresh = init_pretrained(preset("llama-26m"), 3);
  test::run_on_threads(1, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    TrainerOptions options;
    options.shape = {.micro_batches = 1, .sequences = 1, .sequence_length = 8};
    Trainer trainer({*device, communicator, log}, fresh.model(), options, fresh.source());
    save_pretrained({*device, communicator, log}, trainer, fresh, directory / "fresh");
  });
  EXPECT_EQ(load_pretrained(directory / "fresh").tokenizer().encode("ab").size(), 2u);
}

TEST(SavePretrained, OverwritesWhatItWasLoadedFrom) {
  const TemporaryDirectory directory;
  fs::copy(test::golden_directory("llama_tied"), directory / "model");
  const PretrainedModel model = load_pretrained(directory / "model");
  const std::string name = "head.norm.weight";
  on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
    trainer.write(name, std::vector<float>(64, 0.5f));
    save_pretrained(context, trainer, model, directory / "model", {.overwrite = true});
    std::vector<float> got(64);
    PretrainedReader(directory / "model").read(name, 0, 64, got.data());
    EXPECT_EQ(got, std::vector<float>(64, 0.5f));
  });
}

TEST(SavePretrained, RefusesOnAllRanksBeforeAnyWork) {
  const PretrainedModel model = golden("gpt2_tied");
  const TemporaryDirectory directory;
  test::write_file(directory / "file", "x");
  fs::create_directory(directory / "full");
  test::write_file(directory / "full" / "notes.txt", "x");
  ModelConfig other = model.config();
  other.intermediate += 8;
  ModelConfig shorter = model.config();
  shorter.layers -= 1;
  on_two_ranks(model, [&](const Context& context, Trainer& trainer) {
    test::expect_message<UsageError>(
        [&] { save_pretrained(context, trainer, model, directory / "full"); },
        {directory / "full", "is not empty"});
    test::expect_message<UsageError>(
        [&] { save_pretrained(context, trainer, model, directory / "file" / "out"); },
        {directory / "file", "is not a directory"});
    test::expect_message<UsageError>(
        [&] { save_pretrained(context, trainer, other, directory / "out"); },
        {"the trained model", "layers.0.mlp.up.weight", "[80, 64]", "[72, 64]"});
    test::expect_message<UsageError>(
        [&] { save_pretrained(context, trainer, shorter, directory / "out"); },
        {"the trained model has", "parameters"});
  });
  EXPECT_FALSE(fs::exists(directory / "out"));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory / "full"), {}), 1);
}

TEST(SavePretrained, TellsBeforeTrainingThatTheDriveIsTooSmall) {
  const TemporaryDirectory directory;
  ModelConfig config = preset("gpt-1t");
  test::expect_message<UsageError>([&] { check_save_target(config, directory / "out"); },
                                   {directory / "out", "the model takes", "TiB", "left"});
  EXPECT_NO_THROW(check_save_target(golden("gpt2_tied").config(), directory / "a" / "out"));
  EXPECT_TRUE(is_empty(directory));
}

/// A limit on the size of files, as a full drive would show itself.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  sighandler_t handler_;
  rlimit before_{};
};

TEST(SavePretrained, EndsTheJobAndLeavesNothingWhenTheDriveIsFull) {
  const PretrainedModel model = golden("gpt2_tied");
  const TemporaryDirectory directory;
  const FileSizeLimit limit(10'000);
  EXPECT_THROW(on_two_ranks(model,
                            [&](const Context& context, Trainer& trainer) {
                              save_pretrained(context, trainer, model, directory / "a" / "out");
                            }),
               IoError);
  EXPECT_TRUE(is_empty(directory));
}

}  // namespace
}  // namespace strata
