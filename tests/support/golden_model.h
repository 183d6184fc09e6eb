#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/pretrained_model.h"

namespace strata::test {

/// Names of the models under tests/golden, each with what transformers makes of it.
std::vector<std::string> golden_models();
std::filesystem::path golden_directory(const std::string& name);

/// One fixture of tests/golden/make_model_fixtures.py.
class GoldenModel {
 public:
  explicit GoldenModel(const std::string& name);

  const PretrainedModel& model() const noexcept { return model_; }
  std::vector<float> expected(const std::string& tensor) const;
  /// The batch of logits, loss and gradients: two sequences in one micro-batch.
  Batch batch() const;
  /// This rank's part of step `step`, of four sequences, cut into micro_batches * ranks.
  Batch training_batch(int step, int micro_batches, int rank = 0, int ranks = 1) const;

 private:
  Batch cut(const std::string& prefix, std::int64_t first, std::int64_t sequences,
            int micro_batches) const;

  PretrainedModel model_;
  SafetensorsReader expectations_;
};

/// How far values are from what was expected of one tensor of the file.
struct Difference {
  double expected_norm = 0;
  double got_norm = 0;
  double difference_norm = 0;
  double product = 0;
  double largest = 0;  ///< of one element

  void add(std::span<const float> got, std::span<const float> expected);
  double relative() const;  ///< norm of the difference over that of what was expected
  double cosine() const;
};

/// Of each tensor of the file, fused ones as a whole, so that a part whose gradient is nothing but
/// rounding (the bias of keys) is judged beside its neighbours.
using Gradients = std::map<std::string, std::vector<float>>;  // by the names of parameters
std::map<std::string, Difference> compare_gradients(const std::filesystem::path& expectations,
                                                    const std::vector<MappedParameter>& names,
                                                    const Gradients& got);

}  // namespace strata::test
