// Documents that share a sequence are trained as each on its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/text/dataset.h"
#include "core/text/document_packer.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

constexpr std::int64_t kLength = 32;

/// Of several lengths; the first third of each is only read.
std::vector<Document> documents() {
  std::vector<Document> all;
  for (const std::size_t length : {5u, 20u, 12u, 31u, 2u, 9u, 17u, 32u, 7u, 1u}) {
    Document& document = all.emplace_back();
    for (std::size_t t = 0; t < length; ++t) {
      document.ids.push_back(static_cast<std::int32_t>((all.size() * 31 + t * 17) % 97));
      document.trained.push_back(t >= length / 3 ? 1 : 0);
    }
  }
  return all;
}

/// The documents packed together, or each in a sequence of its own.
struct Packed {
  explicit Packed(bool together) {
    std::vector<TrainingToken> tokens;
    const auto take = [&](std::span<const TrainingToken> more) {
      tokens.insert(tokens.end(), more.begin(), more.end());
    };
    DocumentPacker packer(kLength, 96, take);
    for (const Document& document : documents()) {
      packer.add(document);
      if (together) continue;
      packer.finish();
      tokens.pop_back();  // the filler behind the last sequence
    }
    if (together) {
      packer.finish();
    } else {
      tokens.emplace_back(96, true, false);
    }
    sequences = static_cast<std::int64_t>(tokens.size()) / kLength;
    source = make_token_source(std::move(tokens));
    const EvaluationPasses passes(*source, {.sequence_length = kLength, .reset_documents = true},
                                  {.sequences = sequences});
    EXPECT_EQ(passes.count(), 1);
    batch = passes.pass(0);
  }
  std::unique_ptr<TokenSource> source;
  std::int64_t sequences = 0;
  Batch batch;
};

struct Step {
  double loss = 0;
  double norm = 0;
  std::vector<std::vector<float>> parameters;
};

/// One step of gradient descent with rate 1: the change is the gradient.
Step descend(const Model& model, const Packed& packed) {
  Step result;
  test::run_on_threads(1, [&](Communicator& world) {
    const auto device = make_cpu_device(1);
    Log log(1);
    TrainerOptions options = test::tiny_options();
    options.shape = {.micro_batches = 1, .sequences = packed.sequences, .sequence_length = kLength};
    options.optimizer = OptimizerKind::kSgd;
    options.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1.0, .total_steps = 1};
    options.max_grad_norm = 0;
    Trainer trainer({*device, world, log}, model, options, random_parameters(5));
    const StepReport report = trainer.step(packed.batch);
    result.loss = report.loss;
    result.norm = report.gradient_norm;
    for (int b = 0; b < model.block_count(); ++b) {
      for (const auto& spec : model.block(b).parameters()) {
        result.parameters.push_back(trainer.read(spec->name));
      }
    }
  });
  return result;
}

TEST(PackedDocuments, AreTrainedAsEachOnItsOwn) {
  const Packed packed(true);
  const Packed alone(false);
  ASSERT_EQ(alone.sequences, 10);
  ASSERT_LE(packed.sequences, 6) << "packing saves sequences";
  ASSERT_EQ(packed.batch.counted_labels(), alone.batch.counted_labels());
  ModelConfig windowed = test::tiny_llama();
  windowed.window = 6;
  for (const ModelConfig& config : {test::tiny_llama(), windowed, test::tiny_gpt2(true)}) {
    const Model model = make_transformer(config);
    const Step want = descend(model, alone);
    const Step got = descend(model, packed);
    EXPECT_NEAR(got.loss, want.loss, 1e-6 * want.loss);
    EXPECT_NEAR(got.norm, want.norm, 1e-6 * want.norm);
    for (std::size_t p = 0; p < want.parameters.size(); ++p) {
      for (std::size_t i = 0; i < want.parameters[p].size(); ++i) {
        ASSERT_NEAR(got.parameters[p][i], want.parameters[p][i], 1e-6 * want.norm) << p << " " << i;
      }
    }
  }
}

TEST(PackedDocuments, WouldSeeEachOtherWithoutTheMask) {
  Packed packed(true);
  const Packed alone(false);
  for (MicroBatch& micro_batch : packed.batch.micro_batches) micro_batch.first_key.clear();
  const Model model = make_transformer(test::tiny_llama());
  const double want = descend(model, alone).loss;
  EXPECT_GT(std::abs(descend(model, packed).loss - want), 1e-5 * want);
}

}  // namespace
}  // namespace strata
