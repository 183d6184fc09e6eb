#include <fmt/format.h>

#include <algorithm>

#include "core/cpu/product_benchmark.h"
#include "core/model/transformer.h"
#include "launch/cli/bench_targets.h"
#include "launch/cli/print_json.h"
#include "launch/generation/weight_names.h"
#include "parallel/trainer.h"

namespace strata::cli {
namespace {

using Json = nlohmann::ordered_json;
using cpu::LinearShape;
using cpu::ProductRates;

constexpr double kGiga = 1e9;

std::vector<LinearShape> layer_shapes(const ModelConfig& config, const std::string& model,
                                      std::int64_t rows) {
  const std::int64_t hidden = config.hidden;
  const auto shape = [&](const char* what, std::int64_t in, std::int64_t out, std::int64_t count) {
    return LinearShape{fmt::format("{} {} x{}", model, what, rows), rows, in, out, count};
  };
  return {shape("q, o", hidden, config.query_width(), 2),
          shape("k, v", hidden, config.key_value_width(), 2),
          shape("up", hidden, config.intermediate, config.gated_mlp ? 2 : 1),
          shape("down", config.intermediate, hidden, 1)};
}

std::vector<LinearShape> chosen_shapes(const BenchOptions& options) {
  if (!options.sweep) {
    return layer_shapes(preset(options.preset), options.preset,
                        options.sequences * options.sequence_length);
  }
  std::vector<LinearShape> shapes;
  for (const char* model : {"gpt-162m", "gpt-406m", "gpt-1.3b"}) {
    for (const std::int64_t rows : {256, 512, 1024, 2048}) {
      const auto more = layer_shapes(preset(model), model, rows);
      shapes.insert(shapes.end(), more.begin(), more.end());
    }
  }
  return shapes;
}

/// Two layers, and of the vocabulary the part that two layers of all have.
ModelConfig shallow(const std::string& name) {
  ModelConfig config = preset(name);
  const std::int64_t layers = std::min<std::int64_t>(2, config.layers);
  config.vocab_size = std::max<std::int64_t>(256, config.vocab_size * layers / config.layers);
  config.layers = layers;
  config.end_tokens.clear();
  config.begin_token = -1;
  return config;
}

Batch any_batch(const StepShape& shape, std::int64_t vocabulary) {
  MicroBatch batch;
  batch.sequences = shape.sequences;
  batch.tokens_per_sequence = shape.sequence_length;
  for (std::int64_t t = 0; t < shape.tokens(); ++t) {
    batch.ids.push_back(static_cast<std::int32_t>(t * 7919 % vocabulary));
    batch.labels.push_back(static_cast<std::int32_t>(t * 104729 % vocabulary));
    batch.positions.push_back(static_cast<std::int32_t>(t % shape.sequence_length));
  }
  Batch result;
  result.micro_batches.push_back(std::move(batch));
  return result;
}

/// Operations per second inside the blocks of a shallow model, forward and backward: products with
/// everything around them. The best of a few steps.
double block_rate(const BenchOptions& options, int threads) {
  constexpr int kSteps = 4;
  const ModelConfig config = shallow(options.preset);
  const Model model = make_transformer(config);
  TrainerOptions training;
  training.shape = {1, options.sequences,
                    config.positions == PositionKind::kLearned
                        ? std::min(options.sequence_length, config.max_positions)
                        : options.sequence_length};
  training.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = 1e-5};
  training.placement.compute = options.compute;
  const std::unique_ptr<Device> device = make_cpu_device(threads);
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  Log log(1);
  Trainer trainer({*device, *alone, log}, model, training, random_parameters(1));
  const Batch batch = any_batch(training.shape, config.vocab_size);
  double best = 0;
  for (int step = 0; step < kSteps; ++step) {
    const StepReport report = trainer.step(batch);
    best = std::max(best, trainer.operations_per_step() / report.seconds_compute);
  }
  return best;
}

double ours(const ProductRates& rates) { return rates.ours; }
double ceiling(const ProductRates& rates) { return rates.best(); }

Json rates_json(const BenchOptions& options, int threads, const std::vector<ProductRates>& rates,
                double blocks) {
  Json rows = Json::array();
  for (const ProductRates& row : rates) {
    rows.push_back({{"layer", row.name},
                    {"product", row.product},
                    {"weights", name(row.weights)},
                    {"m", row.m},
                    {"n", row.n},
                    {"k", row.k},
                    {"gflops", row.ours / kGiga},
                    {"onednn_plain_gflops", row.plain / kGiga},
                    {"onednn_packed_gflops", row.packed / kGiga},
                    {"fraction", row.fraction()}});
  }
  const double all = cpu::rate_of_all(rates, options.compute, ours);
  const double best = cpu::rate_of_all(rates, options.compute, ceiling);
  Json of_quantized = Json::object();
  for (const WeightName& named : kQuantizedWeights) {
    of_quantized[named.name] = cpu::rate_of_all(rates, named.dtype, ours) / kGiga;
  }
  return {{"compute", name(options.compute)},
          {"threads", threads},
          {"products", rows},
          {"quantized_gflops", of_quantized},
          {"all_gflops", all / kGiga},
          {"ceiling_gflops", best / kGiga},
          {"fraction", all / best},
          {"blocks_gflops", blocks / kGiga},
          {"blocks_fraction", blocks / all}};
}

void print_table(const BenchOptions& options, int threads, const std::vector<ProductRates>& rates,
                 double blocks) {
  fmt::print("products in {}, {} threads, GFLOP/s; ours beside oneDNN\n", name(options.compute),
             threads);
  fmt::print("{:<24}{:<9}{:<8}{:>7}{:>7}{:>7}{:>9}{:>9}{:>9}{:>10}\n", "layer", "product",
             "weights", "m", "n", "k", "ours", "plain", "packed", "fraction");
  for (const ProductRates& row : rates) {
    fmt::print("{:<24}{:<9}{:<8}{:>7}{:>7}{:>7}{:>9.1f}{:>9.1f}{:>9.1f}{:>10.2f}\n", row.name,
               row.product, name(row.weights), row.m, row.n, row.k, row.ours / kGiga,
               row.plain / kGiga, row.packed / kGiga, row.fraction());
  }
  const double all = cpu::rate_of_all(rates, options.compute, ours);
  const double best = cpu::rate_of_all(rates, options.compute, ceiling);
  fmt::print("all of them: {:.1f} of {:.1f}, {:.2f} of the better oneDNN\n", all / kGiga,
             best / kGiga, all / best);
  for (const WeightName& named : kQuantizedWeights) {
    const double rate = cpu::rate_of_all(rates, named.dtype, ours);
    if (rate > 0) fmt::print("with weights in {}: {:.1f}\n", named.name, rate / kGiga);
  }
  fmt::print("whole blocks of {}: {:.1f}, {:.2f} of the products alone\n", options.preset,
             blocks / kGiga, blocks / all);
}

}  // namespace

int bench_matmul(const BenchOptions& options, Runtime& runtime) {
  const int threads = bench_threads(options, runtime);
  const std::vector<ProductRates> rates =
      cpu::measure_products(chosen_shapes(options), options.compute, threads, options.seconds);
  const double blocks = block_rate(options, threads);
  MachineProfile measured;
  const bool fp32 = options.compute == Dtype::kF32;
  (fp32 ? measured.products_fp32 : measured.products_bf16) =
      cpu::rate_of_all(rates, options.compute, ours);
  measured.products_int8 = cpu::rate_of_all(rates, Dtype::kQ8, ours);
  measured.products_int4 = cpu::rate_of_all(rates, Dtype::kQ4, ours);
  (fp32 ? measured.blocks_fp32 : measured.blocks_bf16) = blocks;
  keep(measured, options, runtime);
  if (options.json) {
    print_json(rates_json(options, threads, rates, blocks));
  } else {
    print_table(options, threads, rates, blocks);
  }
  return 0;
}

}  // namespace strata::cli
