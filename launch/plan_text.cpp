#include <fmt/format.h>

#include <iterator>

#include "core/units.h"
#include "launch/plan_report.h"

namespace strata {
namespace {

constexpr double kTera = 1e12;

using Text = std::back_insert_iterator<std::string>;

std::string bytes_or_dash(std::uint64_t bytes) { return bytes == 0 ? "-" : format_bytes(bytes); }

const char* plural(double count) { return count == 1 ? "" : "s"; }

void add_subject(Text out, const PlanReport& report) {
  const PlanSubject& job = report.subject;
  const std::string trained =
      report.trainable < report.parameters
          ? fmt::format(", {} of them trained", format_count(report.trainable))
          : std::string();
  fmt::format_to(out, "{}: {} parameters in {} blocks{}, {}, {} rank{} on {} node{}, ZeRO {}\n",
                 job.name, format_count(report.parameters), report.blocks, trained,
                 name(job.placement.compute), job.ranks, plural(job.ranks), report.nodes(),
                 plural(report.nodes()), job.placement.stage);
  fmt::format_to(
      out,
      "a step: {} micro-batch{} x {} sequence{} x {} tokens x {} rank{} = {} tokens, {} updates\n",
      job.shape.micro_batches, job.shape.micro_batches == 1 ? "" : "es", job.shape.sequences,
      plural(static_cast<double>(job.shape.sequences)), job.shape.sequence_length, job.ranks,
      plural(job.ranks), format_count(report.tokens_per_step()),
      job.placement.update == UpdateTiming::kLazy ? "lazy" : "fused");
}

void add_bytes(Text out, const PlanReport& report) {
  fmt::format_to(out, "\n{:<28}{:>12}{:>12}\n", "bytes of a rank", "DRAM", "swap");
  for (const PlanRow& row : report.rows) {
    fmt::format_to(out, "  {:<26}{:>12}{:>12}\n", row.name, bytes_or_dash(row.dram),
                   bytes_or_dash(row.swap));
  }
  fmt::format_to(out, "  {:<26}{:>12}{:>12}\n", "all", format_bytes(report.memory.dram()),
                 bytes_or_dash(report.memory.swap()));
  const auto& dram = report.subject.placement.dram_bytes;
  const auto& swap = report.subject.placement.swap_bytes;
  fmt::format_to(out, "  {:<26}{:>12}{:>12}\n", "budget",
                 dram ? format_bytes(*dram) : std::string("any"),
                 swap                        ? format_bytes(*swap)
                 : report.memory.swap() == 0 ? std::string("-")
                                             : std::string("all free"));
  if (report.swap_free && report.memory.swap() > 0) {
    fmt::format_to(out, "  {:<26}{:>12}{:>12}\n", "free on the node's drives", "",
                   format_bytes(*report.swap_free));
  }
}

void add_traffic(Text out, const PlanReport& report) {
  if (report.memory.swap() == 0) {
    fmt::format_to(out, "\nnothing goes to swap: all of it fits in DRAM\n");
    return;
  }
  const SwapTraffic& traffic = report.traffic;
  const auto line = [&](const char* what, std::uint64_t read, std::uint64_t written) {
    fmt::format_to(out, "  {:<26}{:>12}{:>12}\n", what, format_traffic(static_cast<double>(read)),
                   format_traffic(static_cast<double>(written)));
  };
  fmt::format_to(out, "\n{:<28}{:>12}{:>12}\n", "swap traffic of a rank", "read", "written");
  line("forward", traffic.forward_read, traffic.forward_written);
  line("backward", traffic.backward_read, traffic.backward_written);
  line("a step", traffic.read(), traffic.written());
  const double share =
      report.parameters /
      (report.subject.placement.stage == 0 ? 1 : static_cast<double>(report.subject.ranks));
  fmt::format_to(out, "  {:<26}{:>12.2f}{:>12.2f}\n", "bytes per parameter",
                 static_cast<double>(traffic.read()) / share,
                 static_cast<double>(traffic.written()) / share);
}

std::string cell(double seconds) {
  return seconds < 1000 ? fmt::format("{:.3f}", seconds) : fmt::format("{:.0f}", seconds);
}

void add_seconds(Text out, const PlanReport& report) {
  const StepSeconds& step = report.seconds;
  fmt::format_to(out, "\n{:<12}{:>10}{:>10}{:>11}{:>13}{:>10}{:>10}{:>10}{:>10}\n", "seconds",
                 "compute", "update", "gradients", "collectives", "read", "write", "all I/O",
                 "phase");
  const auto line = [&](const char* what, const PhaseSeconds& phase) {
    fmt::format_to(out, "  {:<10}{:>10}{:>10}{:>11}{:>13}{:>10}{:>10}{:>10}{:>10}\n", what,
                   cell(phase.compute), cell(phase.update), cell(phase.gradients),
                   cell(phase.collectives), cell(phase.read), cell(phase.write), cell(phase.io),
                   cell(phase.total()));
  };
  line("forward", step.forward);
  line("backward", step.backward);
  fmt::format_to(out, "a step takes {}, bound by {}: {} tokens/s", format_seconds(step.total()),
                 name(step.bound()), format_count(report.tokens_per_second()));
  fmt::format_to(out, " ({} if I/O and compute could move between the phases)\n",
                 format_seconds(step.balanced()));
  if (report.memory.swap() == 0) return;
  const auto count = [](const std::optional<int>& micro_batches) {
    return micro_batches ? fmt::format("from {} micro-batch{} on", *micro_batches,
                                       *micro_batches == 1 ? "" : "es")
                         : std::string("never");
  };
  fmt::format_to(out, "compute hides I/O {}; over the whole step {}\n",
                 count(report.micro_batches_hidden), count(report.micro_batches_balanced));
}

void add_wear(Text out, const PlanReport& report) {
  if (report.traffic.written() == 0) return;
  fmt::format_to(out, "1000 steps write {} to the drives of a node",
                 format_traffic(1000 * report.written_per_step_of_node()));
  if (const auto steps = report.steps_until_worn()) {
    fmt::format_to(out, "; rated for {:.0f} TB, they last {} steps, {:.0f} days of training\n",
                   report.endurance / kTera, format_count(*steps),
                   *steps * report.seconds.total() / 86400);
  } else {
    fmt::format_to(out, "; --drive-endurance TB says how many steps they last\n");
  }
}

void add_rates(Text out, const PlanReport& report) {
  fmt::format_to(out, "\nrates, per second\n");
  for (const RateOrigin& origin : report.rates.origins) {
    const std::string value = origin.is_bytes
                                  ? format_traffic(origin.per_second)
                                  : fmt::format("{} flop", format_count(origin.per_second));
    fmt::format_to(out, "  {:<26}{:>12}  {}{}{}\n", origin.what, value, name(origin.kind),
                   origin.remedy.empty() ? "" : ": measure it with ", origin.remedy);
  }
}

void add_smallest(Text out, const PlanReport& report) {
  const SmallestBudgets& smallest = report.smallest;
  fmt::format_to(out,
                 "smallest budgets of a rank: --dram {} with {} of swap{}; --dram {} without\n",
                 size_flag(smallest.dram), format_bytes(smallest.swap),
                 smallest.assumes_swap ? " (--swap DIR)" : "", size_flag(smallest.dram_alone));
}

}  // namespace

std::string size_flag(std::uint64_t bytes) {
  return fmt::format("{}MiB", (bytes + (1 << 20) - 1) >> 20);
}

std::string format_plan(const PlanReport& report) {
  std::string text;
  const Text out = std::back_inserter(text);
  add_subject(out, report);
  add_bytes(out, report);
  add_traffic(out, report);
  add_seconds(out, report);
  add_wear(out, report);
  add_smallest(out, report);
  add_rates(out, report);
  for (const std::string& note : report.notes) fmt::format_to(out, "note: {}\n", note);
  return text;
}

std::string format_memory_wall(const PlanReport& report) {
  const MemoryWall& wall = report.wall;
  const double devices = wall.devices;
  std::string text;
  const Text out = std::back_inserter(text);
  fmt::format_to(
      out,
      "\nthe memory wall: everything in memory, mixed precision, {} sequences of {} tokens "
      "on {} devices\n",
      wall.sequences, wall.sequence_length, wall.devices);
  const auto line = [&](const char* what, double bytes, const char* why) {
    fmt::format_to(out, "  {:<26}{:>12}  {}\n", what, format_traffic(bytes), why);
  };
  line("states", wall.states,
       "20 bytes a parameter: fp16 weight, gradient 2 + 2; fp32 weight, m, v, gradient 4 x 4");
  line("activations", wall.activations, "2 tokens (16 h + 2 H s) L bytes without recomputation");
  line("working memory", devices * (wall.state_working + wall.activation_working),
       "of each device: 16 h^2 bytes for its largest product, one layer's activations");
  line("all", wall.total(), "");
  line("with recomputation", wall.total() - wall.activations + wall.checkpoints,
       "checkpoints of 2 tokens h L bytes instead of activations");
  const double ranks = report.subject.ranks;
  line("this plan, DRAM", ranks * static_cast<double>(report.memory.dram()), "of all ranks");
  const double swap = ranks * static_cast<double>(report.memory.swap());
  const std::string per_parameter = fmt::format(
      "of all ranks: {:.1f} bytes a parameter, 12 of them state, since the bf16 weight "
      "is half of the fp32 one",
      swap / report.parameters);
  line("this plan, swap", swap, per_parameter.c_str());
  return text;
}

}  // namespace strata
