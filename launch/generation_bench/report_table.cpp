#include <fmt/format.h>

#include <iterator>

#include "core/units.h"
#include "launch/generation_bench/report.h"

namespace strata {
namespace {

using Out = std::back_insert_iterator<std::string>;

constexpr const char* kMissing = "not available";

std::string rate_text(const MeasuredRate& rate) {
  if (rate.per_second <= 0) return fmt::format("not measured ({})", rate.remedy);
  if (rate.is_bytes) return format_traffic(rate.per_second) + "/s";
  return fmt::format("{:.1f} GFLOP/s", rate.per_second / 1e9);
}

std::string tier_text(const GenerationTier& tier) {
  if (tier.directory.empty()) return fmt::format("{}: weights stay in memory", tier.label());
  std::string text = fmt::format("{}: {}", tier.label(), tier.directory);
  if (!tier.device.empty()) text += ", " + tier.device;
  text += tier.link.empty() ? ", link not shown by the system" : ", " + tier.link;
  text += tier.read > 0
              ? fmt::format(", reads {}/s", format_traffic(tier.read))
              : fmt::format(", reads not measured (strata bench io --swap {})", tier.directory);
  return text;
}

void add_head(Out out, const GenerationReport& report) {
  fmt::format_to(out, "{}\n", report.machine);
  for (const MeasuredRate& rate : report.rates) {
    fmt::format_to(out, "{}: {}\n", rate.what, rate_text(rate));
  }
  for (const GenerationTier& tier : report.tiers) fmt::format_to(out, "tier {}\n", tier_text(tier));
  if (report.energy_source.empty()) {
    fmt::format_to(out, "energy: {}: {}\n", kMissing, report.energy_missing);
  } else {
    fmt::format_to(out, "energy: {}\n", report.energy_source);
  }
  if (report.prices) {
    fmt::format_to(out, "prices in {}, the system {:g}\n", report.prices->currency,
                   report.prices->system);
  }
}

/// A figure in a column, or what stands for one that is missing.
std::string figure(const std::optional<double>& value, int decimals) {
  return value ? fmt::format("{:.{}f}", *value, decimals) : "-";
}

std::string seconds_text(double seconds) { return seconds > 0 ? format_seconds(seconds) : "-"; }

void add_columns(Out out, const GenerationReport& report) {
  fmt::format_to(out, "{:>7}{:>12}{:>13}{:>10}{:>11}{:>12}{:>10}{:>9}{:>9}", "batch", "prefill",
                 "per token", "tokens/s", "prompt/s", "read/token", "roofline", "bound", "J/token");
  if (report.prices) fmt::format_to(out, "{:>16}", "tokens/s/1000");
  fmt::format_to(out, "\n");
}

void add_row(Out out, const GenerationReport& report, const GenerationCell& cell) {
  fmt::format_to(out, "{:>7}", cell.what.shape.batch);
  if (cell.misfit) {
    fmt::format_to(out, "  does not fit: need {} of {}, have {}\n", format_bytes(cell.misfit->need),
                   cell.misfit->what, format_bytes(cell.misfit->have));
    return;
  }
  if (!cell.measured) {
    fmt::format_to(out, "  not run: {}\n", cell.refusal);
    return;
  }
  const GenerationMeasurement& measured = *cell.measured;
  const auto fraction = cell.roofline_fraction();
  fmt::format_to(out, "{:>12}{:>13}{:>10}{:>11}{:>12}{:>10}{:>9}{:>9}",
                 seconds_text(measured.prefill_seconds), seconds_text(measured.decode_seconds),
                 figure(cell.tokens_per_second(), 2), figure(cell.prompt_tokens_per_second(), 1),
                 format_traffic(cell.bytes_per_token().value_or(0)), figure(fraction, 2),
                 fraction ? name(measured.bound) : "-", figure(cell.joules_per_token(), 3));
  if (report.prices) {
    fmt::format_to(out, "{:>16}", figure(cell.tokens_per_second_per_1000(*report.prices), 3));
  }
  fmt::format_to(out, "\n");
}

std::string heading(const GenerationReport& report, const GenerationCell& cell) {
  const GenerationShape& shape = cell.what.shape;
  return fmt::format("{} ({} parameters), {}, weights {}, keys and values {}, {} + {} tokens",
                     cell.what.model, format_count(cell.parameters),
                     report.tier(cell.what.tier).label(), cell.what.weights, cell.what.kv,
                     shape.prompt, shape.generated);
}

}  // namespace

std::string generation_table(const GenerationReport& report) {
  std::string text;
  const Out out(text);
  add_head(out, report);
  std::string last;
  for (const GenerationCell& cell : report.cells) {
    const std::string group = heading(report, cell);
    if (group != last) {
      fmt::format_to(out, "\n{}\n", group);
      add_columns(out, report);
      last = group;
    }
    add_row(out, report, cell);
  }
  return text;
}

}  // namespace strata
