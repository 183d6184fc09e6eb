#include <nlohmann/json.hpp>

#include "launch/plan_report.h"

namespace strata {
namespace {

using Json = nlohmann::ordered_json;

template <typename Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json subject_json(const PlanReport& report) {
  const PlanSubject& job = report.subject;
  return {{"model", job.name},
          {"parameters", report.parameters},
          {"trainable_parameters", report.trainable},
          {"blocks", report.blocks},
          {"compute", name(job.placement.compute)},
          {"stage", job.placement.stage},
          {"update", job.placement.update == UpdateTiming::kLazy ? "lazy" : "fused"},
          {"ranks", job.ranks},
          {"ranks_per_node", job.ranks_per_node},
          {"nodes", report.nodes()},
          {"gradient_accumulation_steps", job.shape.micro_batches},
          {"per_device_train_batch_size", job.shape.sequences},
          {"sequence_length", job.shape.sequence_length},
          {"tokens_per_step", report.tokens_per_step()}};
}

Json bytes_json(const PlanReport& report) {
  Json rows = Json::array();
  for (const PlanRow& row : report.rows) {
    rows.push_back({{"kind", row.name}, {"dram", row.dram}, {"swap", row.swap}});
  }
  return {{"kinds", rows},
          {"dram", report.memory.dram()},
          {"swap", report.memory.swap()},
          {"dram_budget", or_null(report.subject.placement.dram_bytes)},
          {"swap_budget", or_null(report.subject.placement.swap_bytes)},
          {"swap_free_of_node", or_null(report.swap_free)},
          {"smallest_dram", report.smallest.dram},
          {"swap_of_smallest_dram", report.smallest.swap},
          {"smallest_dram_without_swap", report.smallest.dram_alone}};
}

Json traffic_json(const PlanReport& report) {
  const SwapTraffic& traffic = report.traffic;
  return {{"forward_read", traffic.forward_read},
          {"forward_written", traffic.forward_written},
          {"backward_read", traffic.backward_read},
          {"backward_written", traffic.backward_written},
          {"read", traffic.read()},
          {"written", traffic.written()},
          {"written_per_1000_steps_of_node", 1000 * report.written_per_step_of_node()},
          {"steps_until_worn", or_null(report.steps_until_worn())}};
}

Json phase_json(const PhaseSeconds& phase) {
  return {{"compute", phase.compute},
          {"update", phase.update},
          {"gradients", phase.gradients},
          {"collectives", phase.collectives},
          {"read", phase.read},
          {"write", phase.write},
          {"io", phase.io},
          {"total", phase.total()}};
}

Json seconds_json(const PlanReport& report) {
  const StepSeconds& step = report.seconds;
  return {{"forward", phase_json(step.forward)},
          {"backward", phase_json(step.backward)},
          {"step", step.total()},
          {"balanced", step.balanced()},
          {"bound_by", name(step.bound())},
          {"tokens_per_second", report.tokens_per_second()},
          {"micro_batches_hiding_io", or_null(report.micro_batches_hidden)},
          {"micro_batches_hiding_io_balanced", or_null(report.micro_batches_balanced)}};
}

Json rates_json(const PlanReport& report) {
  Json rates = Json::array();
  for (const RateOrigin& origin : report.rates.origins) {
    rates.push_back({{"what", origin.what},
                     {"per_second", origin.per_second},
                     {"unit", origin.is_bytes ? "bytes" : "operations"},
                     {"origin", name(origin.kind)},
                     {"measure_with", origin.remedy}});
  }
  return rates;
}

Json wall_json(const PlanReport& report) {
  const MemoryWall& wall = report.wall;
  const auto ranks = static_cast<double>(report.subject.ranks);
  return {{"sequences", wall.sequences},
          {"sequence_length", wall.sequence_length},
          {"devices", wall.devices},
          {"states", wall.states},
          {"activations", wall.activations},
          {"checkpoints", wall.checkpoints},
          {"state_working_of_device", wall.state_working},
          {"activation_working_of_device", wall.activation_working},
          {"all", wall.total()},
          {"plan_dram_of_all_ranks", ranks * static_cast<double>(report.memory.dram())},
          {"plan_swap_of_all_ranks", ranks * static_cast<double>(report.memory.swap())}};
}

}  // namespace

std::string plan_json(const PlanReport& report) {
  const Json json = {{"job", subject_json(report)},
                     {"bytes_of_rank", bytes_json(report)},
                     {"swap_traffic_of_rank", traffic_json(report)},
                     {"seconds", seconds_json(report)},
                     {"rates", rates_json(report)},
                     {"memory_wall", wall_json(report)},
                     {"notes", report.notes}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace strata
