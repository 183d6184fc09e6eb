#include "tests/support/golden_model.h"

#include <cmath>

namespace strata::test {
namespace {

std::vector<std::int32_t> integers(const SafetensorsReader& reader, const std::string& name) {
  const SafetensorsTensor& tensor = reader.at(name);
  std::vector<std::int64_t> wide(static_cast<std::size_t>(tensor.numel()));
  reader.read(tensor, 0, tensor.numel(), wide.data());
  return {wide.begin(), wide.end()};
}

}  // namespace

std::vector<std::string> golden_models() {
  return {"gpt2_tied",    "gpt2_untied",  "llama_untied", "llama_tied",    "llama_llama3",
          "llama_linear", "llama_yarn",   "opt_tied",     "opt_post_norm", "mistral_window",
          "qwen2_tied",   "qwen2_window", "qwen3_untied"};
}

std::filesystem::path golden_directory(const std::string& name) {
  return std::filesystem::path(STRATA_SOURCE_DIR) / "tests/golden" / name;
}

GoldenModel::GoldenModel(const std::string& name)
    : model_(load_pretrained(golden_directory(name))),
      expectations_(golden_directory(name) / "expectations.safetensors") {}

std::vector<float> GoldenModel::expected(const std::string& tensor) const {
  const SafetensorsTensor& found = expectations_.at(tensor);
  std::vector<float> values(static_cast<std::size_t>(found.numel()));
  expectations_.read(found, 0, found.numel(), values.data());
  return values;
}

Batch GoldenModel::cut(const std::string& prefix, std::int64_t first, std::int64_t sequences,
                       int micro_batches) const {
  const std::vector<std::int32_t> ids = integers(expectations_, prefix + "input_ids");
  const std::vector<std::int32_t> labels = integers(expectations_, prefix + "shifted_labels");
  const std::int64_t length = expectations_.at(prefix + "input_ids").shape.back();
  Batch batch;
  for (int i = 0; i < micro_batches; ++i) {
    MicroBatch part;
    part.sequences = sequences / micro_batches;
    part.tokens_per_sequence = length;
    const std::int64_t begin = (first + i * part.sequences) * length;
    const std::int64_t end = begin + part.tokens();
    part.ids.assign(ids.begin() + begin, ids.begin() + end);
    part.labels.assign(labels.begin() + begin, labels.begin() + end);
    for (std::int64_t t = 0; t < part.tokens(); ++t) {
      part.positions.push_back(static_cast<std::int32_t>(t % length));
    }
    batch.micro_batches.push_back(std::move(part));
  }
  return batch;
}

Batch GoldenModel::batch() const { return cut("", 0, 2, 1); }

Batch GoldenModel::training_batch(int step, int micro_batches, int rank, int ranks) const {
  const std::int64_t own = 4 / ranks;
  return cut("train.", step * 4 + rank * own, own, micro_batches);
}

void Difference::add(std::span<const float> got, std::span<const float> expected) {
  double expected_squares = 0, got_squares = 0, squares = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double want = expected[i], have = got[i];
    expected_squares += want * want;
    got_squares += have * have;
    squares += (have - want) * (have - want);
    product += have * want;
    largest = std::isfinite(have) ? std::max(largest, std::abs(have - want)) : INFINITY;
  }
  expected_norm = std::hypot(expected_norm, std::sqrt(expected_squares));
  got_norm = std::hypot(got_norm, std::sqrt(got_squares));
  difference_norm = std::hypot(difference_norm, std::sqrt(squares));
}

double Difference::relative() const { return difference_norm / expected_norm; }
double Difference::cosine() const { return product / (expected_norm * got_norm); }

std::map<std::string, Difference> compare_gradients(const std::filesystem::path& expectations,
                                                    const std::vector<MappedParameter>& names,
                                                    const Gradients& got) {
  const SafetensorsReader reader(expectations);
  std::map<std::string, Difference> differences;
  for (const MappedParameter& mapped : names) {
    TensorSource source = mapped.source;
    source.hf_name = "gradient." + source.hf_name;
    std::vector<float> expected(static_cast<std::size_t>(mapped.shape.numel()));
    read_parameter_range(reader, source, mapped.shape, 0, mapped.shape.numel(), expected.data());
    differences[mapped.source.hf_name].add(got.at(mapped.name), expected);
  }
  return differences;
}

}  // namespace strata::test
