#include <nlohmann/json.hpp>

#include "launch/generation_bench/report.h"

namespace strata {
namespace {

using Json = nlohmann::ordered_json;

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }
Json positive_json(double value) { return value > 0 ? Json(value) : Json(); }
Json text_json(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json tier_json(const GenerationTier& tier) {
  return {{"name", tier.name},
          {"label", tier.label()},
          {"directory", text_json(tier.directory)},
          {"device", text_json(tier.device)},
          {"link", text_json(tier.link)},
          {"read_bytes_per_second", positive_json(tier.read)},
          {"emulated", tier.read_limit > 0},
          {"read_limit_bytes_per_second", positive_json(tier.read_limit)}};
}

Json rate_json(const MeasuredRate& rate) {
  return {{"what", rate.what},
          {"per_second", positive_json(rate.per_second)},
          {"unit", rate.is_bytes ? "bytes" : "operations"}};
}

Json measured_json(const GenerationReport& report, const GenerationCell& cell) {
  const GenerationMeasurement& measured = *cell.measured;
  const bool has_roofline = measured.roofline_seconds > 0;
  return {
      {"prefill_seconds", measured.prefill_seconds},
      {"decode_seconds_per_token", positive_json(measured.decode_seconds)},
      {"seconds", measured.seconds},
      {"tokens", measured.tokens},
      {"prompt_tokens", measured.prompt_tokens},
      {"tokens_per_second", optional_json(cell.tokens_per_second())},
      {"prompt_tokens_per_second", optional_json(cell.prompt_tokens_per_second())},
      {"bytes_read", measured.bytes_read},
      {"bytes_read_per_token", optional_json(cell.bytes_per_token())},
      {"roofline_seconds", positive_json(measured.roofline_seconds)},
      {"roofline_fraction", optional_json(cell.roofline_fraction())},
      {"roofline_bound", has_roofline ? Json(name(measured.bound)) : Json()},
      {"joules", optional_json(measured.joules)},
      {"joules_per_token", optional_json(cell.joules_per_token())},
      {"tokens_per_second_per_1000",
       report.prices ? optional_json(cell.tokens_per_second_per_1000(*report.prices)) : Json()}};
}

Json cell_json(const GenerationReport& report, const GenerationCell& cell) {
  Json json = {{"model", cell.what.model},
               {"parameters", cell.parameters},
               {"tier", cell.what.tier},
               {"weights", cell.what.weights},
               {"kv", cell.what.kv},
               {"batch", cell.what.shape.batch},
               {"prompt_tokens_of_each", cell.what.shape.prompt},
               {"new_tokens_of_each", cell.what.shape.generated},
               {"measured", cell.measured ? measured_json(report, cell) : Json()},
               {"does_not_fit", nullptr},
               {"not_run", text_json(cell.refusal)}};
  if (cell.misfit) {
    json["does_not_fit"] = {{"what", cell.misfit->what},
                            {"need_bytes", cell.misfit->need},
                            {"have_bytes", cell.misfit->have}};
  }
  return json;
}

}  // namespace

std::string generation_json(const GenerationReport& report) {
  Json json = {{"machine", report.machine},
               {"rates", Json::array()},
               {"tiers", Json::array()},
               {"energy",
                {{"source", text_json(report.energy_source)},
                 {"not_available", text_json(report.energy_missing)}}},
               {"prices", nullptr},
               {"cells", Json::array()}};
  for (const MeasuredRate& rate : report.rates) json["rates"].push_back(rate_json(rate));
  for (const GenerationTier& tier : report.tiers) json["tiers"].push_back(tier_json(tier));
  if (report.prices) {
    json["prices"] = {{"currency", report.prices->currency},
                      {"system", report.prices->system},
                      {"tiers", report.prices->tiers}};
  }
  for (const GenerationCell& cell : report.cells) json["cells"].push_back(cell_json(report, cell));
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace strata
