#include "launch/plan_report.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <map>

namespace strata {
namespace {

/// Counts are exact up to this many micro-batches, and in proportion beyond.
constexpr int kMeasuredMicroBatches = 16;

std::size_t extrapolate(std::size_t before, std::size_t last, double more) {
  const double slope = static_cast<double>(last) - static_cast<double>(before);
  return last + static_cast<std::size_t>(std::ceil(std::max(0.0, slope) * more));
}

BlockCost cost_of(const Model& model, int block, const StepShape& shape, Dtype compute) {
  if (shape.micro_batches <= kMeasuredMicroBatches) {
    return measure_block(model, block, shape, compute);
  }
  StepShape fewer = shape;
  fewer.micro_batches = kMeasuredMicroBatches - 1;
  const BlockCost before = measure_block(model, block, fewer, compute);
  fewer.micro_batches = kMeasuredMicroBatches;
  BlockCost cost = measure_block(model, block, fewer, compute);
  const double factor = static_cast<double>(shape.micro_batches) / kMeasuredMicroBatches;
  const double more = shape.micro_batches - kMeasuredMicroBatches;
  cost.forward_operations *= factor;
  cost.backward_operations *= factor;
  cost.forward_workspace = extrapolate(before.forward_workspace, cost.forward_workspace, more);
  cost.backward_workspace = extrapolate(before.backward_workspace, cost.backward_workspace, more);
  return cost;
}

/// What layers may differ in.
struct LayerKind {
  std::int64_t window = 0;
  std::vector<bool> frozen;  // by parameter
  int above = 0;             // the lowest block that is trained: -1, 0, 1
  auto operator<=>(const LayerKind&) const = default;
};

LayerKind kind_of(const Model& model, const ModelConfig& config, int block) {
  LayerKind kind{.window = config.window_of(block - 1),
                 .frozen = {},
                 .above = std::clamp(block - model.lowest_trainable(), -1, 1)};
  for (const auto& spec : model.block(block).parameters()) kind.frozen.push_back(spec->frozen);
  return kind;
}

/// Measures one layer of each kind.
std::vector<BlockCost> measure_transformer(const Model& model, const ModelConfig& config,
                                           const StepShape& shape, Dtype compute) {
  std::vector<BlockCost> costs;
  std::map<LayerKind, BlockCost> known;
  const int last = model.block_count() - 1;
  for (int block = 0; block <= last; ++block) {
    if (block == 0 || block == last) {
      costs.push_back(cost_of(model, block, shape, compute));
      continue;
    }
    const LayerKind kind = kind_of(model, config, block);
    const auto found = known.find(kind);
    costs.push_back(found != known.end()
                        ? found->second
                        : known.emplace(kind, cost_of(model, block, shape, compute)).first->second);
  }
  return costs;
}

Model make_model(const PlanSubject& subject) {
  Model model = make_transformer(subject.config, subject.dropout);
  for (const std::string& name : subject.frozen) model.freeze(name);
  return model;
}

std::vector<PlanRow> rows_of(const MemoryPlan& plan) {
  std::vector<PlanRow> rows;
  const auto section = [&](const char* name, Section which) {
    PlanRow row{name};
    for (int b = 0; b < plan.residency.blocks(); ++b) {
      const SectionKey key{b, which};
      (plan.residency.resident(key) ? row.dram : row.swap) += plan.layout.bytes(key);
    }
    rows.push_back(row);
  };
  section("frozen parameters", Section::kWeights);
  section("parameters, upper half", Section::kHi);
  section("parameters, lower half", Section::kLo);
  section("Adam m", Section::kM);
  section("Adam v", Section::kV);
  section("gradients", Section::kGradient);
  rows.push_back({"boundary activations", plan.boundaries, plan.swap_boundaries});
  rows.push_back({"boundary gradients", plan.boundary_gradients});
  rows.push_back({"working set of a block", plan.workspace});
  rows.push_back({"gathered blocks", plan.gathered});
  rows.push_back({"gradient accumulators", plan.gradient_buffers});
  rows.push_back({"gradients of tied tables", plan.shared_gradients});
  rows.push_back({"pool of chunks", plan.chunk_pool});
  rows.push_back({"gradients on their way", plan.gradient_staging});
  rows.push_back({"batch", plan.batch});
  std::erase_if(rows, [](const PlanRow& row) { return row.dram == 0 && row.swap == 0; });
  return rows;
}

SmallestBudgets smallest_budgets(const PlanMaterial& material, const PlacementRequest& placement) {
  SmallestBudgets smallest;
  PlacementRequest request = placement;
  if (request.swap.empty()) {
    request.swap = {{.path = "", .weight = 1}};
    smallest.assumes_swap = true;
  }
  smallest.dram = smallest_dram(material.input(request));
  request.dram_bytes = smallest.dram;
  smallest.swap = make_memory_plan(material.input(request)).swap();
  request = placement;
  request.swap.clear();
  request.sections.fill(Place::kAuto);
  request.activations = Place::kAuto;
  smallest.dram_alone = smallest_dram(material.input(request));
  return smallest;
}

/// 32,768 tokens over 16 devices, as in the paper, in sequences of at most 2048.
MemoryWall usual_wall(const ModelConfig& config, double parameters) {
  constexpr std::int64_t kTokens = 32768;
  constexpr std::int64_t kLongest = 2048;
  constexpr int kDevices = 16;
  const std::int64_t length = std::clamp<std::int64_t>(config.max_positions, 1, kLongest);
  return memory_wall(config, parameters, kTokens / length, length, kDevices);
}

}  // namespace

double PlanReport::tokens_per_step() const {
  return static_cast<double>(subject.shape.tokens()) * subject.shape.micro_batches * subject.ranks;
}

int PlanReport::nodes() const {
  return (subject.ranks + subject.ranks_per_node - 1) / subject.ranks_per_node;
}

double PlanReport::written_per_step_of_node() const {
  return static_cast<double>(traffic.written()) * subject.ranks_per_node;
}

std::optional<double> PlanReport::steps_until_worn() const {
  if (endurance <= 0 || traffic.written() == 0) return std::nullopt;
  return endurance / written_per_step_of_node();
}

PlanMaterial::PlanMaterial(const PlanSubject& subject)
    : shape_(subject.shape),
      state_(subject.state),
      model_(make_model(subject)),
      partition_(model_, subject.placement.stage == 0 ? 1 : subject.ranks),
      plan_(model_, subject.placement.update),
      costs_(
          measure_transformer(model_, subject.config, subject.shape, subject.placement.compute)) {}

MemoryPlanInput PlanMaterial::input(const PlacementRequest& placement) const {
  return {.model = model_,
          .partition = partition_,
          .plan = plan_,
          .costs = costs_,
          .shape = shape_,
          .state = state_,
          .placement = placement};
}

PlanReport make_plan_report(const PlanSubject& subject, const RateInputs& inputs) {
  const PlanMaterial material(subject);
  const MemoryPlanInput input = material.input(subject.placement);
  PlanReport report;
  report.subject = subject;
  report.parameters = static_cast<double>(material.model().parameter_count());
  report.trainable = static_cast<double>(material.model().trainable_count());
  report.blocks = material.model().block_count();
  report.memory = make_memory_plan(input);
  report.rows = rows_of(report.memory);
  report.traffic = predict_traffic(input, report.memory);
  report.load = load_of(input, report.memory, subject.ranks);
  RateInputs wanted = inputs;
  wanted.compute = subject.placement.compute;
  wanted.ranks = subject.ranks;
  wanted.ranks_per_node = subject.ranks_per_node;
  wanted.swaps = report.memory.swap() > 0;
  report.rates = known_rates(wanted);
  report.seconds = predict(report.load, report.rates.step);
  report.micro_batches_hidden = micro_batches_that_hide_io(report.load, report.rates.step);
  report.micro_batches_balanced = micro_batches_that_balance(report.load, report.rates.step);
  report.smallest = smallest_budgets(material, subject.placement);
  report.wall = usual_wall(subject.config, report.parameters);
  return report;
}

}  // namespace strata
