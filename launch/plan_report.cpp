#include "launch/plan_report.h"

#include <algorithm>
#include <cmath>

namespace strata {
namespace {

/// The costs of a transformer's blocks from those of one that has a single layer: its layers are
/// equal. Counts are exact up to this many micro-batches, and in proportion beyond.
constexpr int kMeasuredMicroBatches = 16;

std::size_t extrapolate(std::size_t before, std::size_t last, double more) {
  const double slope = static_cast<double>(last) - static_cast<double>(before);
  return last + static_cast<std::size_t>(std::ceil(std::max(0.0, slope) * more));
}

std::vector<BlockCost> costs_of_one_layer(const ModelConfig& config, const StepShape& shape,
                                          Dtype compute) {
  const Model shallow = make_transformer(config);
  if (shape.micro_batches <= kMeasuredMicroBatches) {
    return measure_blocks(shallow, shape, compute);
  }
  StepShape fewer = shape;
  fewer.micro_batches = kMeasuredMicroBatches - 1;
  const std::vector<BlockCost> before = measure_blocks(shallow, fewer, compute);
  fewer.micro_batches = kMeasuredMicroBatches;
  std::vector<BlockCost> costs = measure_blocks(shallow, fewer, compute);
  const double factor = static_cast<double>(shape.micro_batches) / kMeasuredMicroBatches;
  const double more = shape.micro_batches - kMeasuredMicroBatches;
  for (std::size_t b = 0; b < costs.size(); ++b) {
    costs[b].forward_operations *= factor;
    costs[b].backward_operations *= factor;
    costs[b].forward_workspace =
        extrapolate(before[b].forward_workspace, costs[b].forward_workspace, more);
    costs[b].backward_workspace =
        extrapolate(before[b].backward_workspace, costs[b].backward_workspace, more);
  }
  return costs;
}

std::vector<BlockCost> measure_transformer(const ModelConfig& config, const StepShape& shape,
                                           Dtype compute) {
  const auto measure = [&](std::int64_t layer) {
    ModelConfig shallow = config;
    shallow.layers = 1;
    shallow.window = config.window_of(layer);
    shallow.first_windowed_layer = 0;
    return costs_of_one_layer(shallow, shape, compute);
  };
  // Layers differ in nothing but their window.
  const std::vector<BlockCost> first = measure(0);
  const std::vector<BlockCost> last = measure(config.layers - 1);
  std::vector<BlockCost> costs{first.front()};
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    costs.push_back(config.window_of(layer) == config.window_of(0) ? first[1] : last[1]);
  }
  costs.push_back(first.back());
  return costs;
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
      model_(make_transformer(subject.config)),
      partition_(model_, subject.placement.stage == 0 ? 1 : subject.ranks),
      plan_(model_, subject.placement.update),
      costs_(measure_transformer(subject.config, subject.shape, subject.placement.compute)) {}

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
