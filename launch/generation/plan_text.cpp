#include "launch/generation/plan_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/units.h"

namespace strata {
namespace {

constexpr std::int64_t kMostHiddenRows = 1 << 16;

GenerationCost cost_of(const GenerationPlan& plan, std::uint64_t kv_token_bytes) {
  return {.streamed_bytes = static_cast<double>(plan.streamed),
          .weight_bytes = static_cast<double>(plan.weights),
          .operations_per_token = plan.operations_per_row,
          .operations_per_logits = plan.operations_per_logits,
          .kv_bytes_per_token = static_cast<double>(kv_token_bytes)};
}

GenerationRates rates_of(const KnownRates& rates, int ranks) {
  return {.stream = rates.step.drive.read / ranks,
          .memory = rates.memory_read,
          .operations = rates.step.operations};
}

/// A pass in which every text in flight gets a token, on one rank.
struct DecodePass {
  GenerationCost cost;
  GenerationRates rates;
  GenerationShape shape;  // of the mean text
  PassTime time;
};

std::string texts_of(std::int64_t count) {
  return fmt::format("{} {}", count, count == 1 ? "text" : "texts");
}

DecodePass decode_pass(const GenerationPlan& plan, const GeneratorOptions& options,
                       std::uint64_t kv_token_bytes, int ranks, const GenerationWork& work,
                       const KnownRates& rates) {
  DecodePass pass;
  pass.cost = cost_of(plan, kv_token_bytes);
  pass.rates = rates_of(rates, ranks);
  const bool known = work.texts > 0;
  const std::int64_t half = options.sequence_tokens / 2;
  const auto least_one = [](std::int64_t tokens) { return std::max<std::int64_t>(tokens, 1); };
  pass.shape.prompt = least_one(known ? work.prompt_tokens / work.texts : half);
  pass.shape.generated = least_one(known ? work.new_tokens / work.texts : half);
  // As many as there are, as are wanted, and as memory holds of this length.
  const auto held = static_cast<std::int64_t>(plan.kv / kv_token_bytes) /
                    (pass.shape.prompt + pass.shape.generated);
  pass.shape.batch = std::max<std::int64_t>(1, std::min(options.sequences, held));
  const auto batch = static_cast<double>(pass.shape.batch);
  const double length =
      static_cast<double>(pass.shape.prompt) + static_cast<double>(pass.shape.generated) / 2;
  pass.time = pass_time(pass.cost, pass.rates,
                        {.tokens = batch, .logits = batch, .attended_tokens = batch * length});
  return pass;
}

std::string memory_line(const GenerationPlan& plan) {
  const char* blocks = plan.keeps_gathered ? "gathered once" : "read ahead";
  return fmt::format(
      "memory of a rank: {}: {} of weights that stay, {} of blocks {}, {} of keys and values, "
      "{} of activations and buffers",
      format_bytes(plan.dram()), format_bytes(plan.resident), format_bytes(plan.gathered), blocks,
      format_bytes(plan.kv), format_bytes(plan.dram() - plan.resident - plan.gathered - plan.kv));
}

std::string streams_line(const GenerationPlan& plan) {
  if (plan.streamed == 0 && !plan.looks_up) {
    return "all weights stay in memory: nothing is read after the first pass";
  }
  std::string line =
      fmt::format("a pass streams {} of weights on a rank", format_bytes(plan.streamed));
  if (plan.looks_up) line += ", and rows of the embedding that it looks up";
  if (plan.swap > 0) line += fmt::format("; {} are copied to swap first", format_bytes(plan.swap));
  return line;
}

}  // namespace

const char* words(GenerationBound bound) {
  switch (bound) {
    case GenerationBound::kStream:
      return "the drive";
    case GenerationBound::kCompute:
      return "products";
    case GenerationBound::kMemory:
      break;
  }
  return "memory";
}

std::int64_t hidden_rows(const GenerationPlan& plan, const KnownRates& rates, int ranks) {
  const PassTime one =
      pass_time(cost_of(plan, 0), rates_of(rates, ranks), {.tokens = 1, .logits = 1});
  if (one.compute <= 0) return kMostHiddenRows;
  const double rows = std::max(one.stream, one.memory) / one.compute;
  return static_cast<std::int64_t>(std::clamp(rows, 1.0, static_cast<double>(kMostHiddenRows)));
}

GenerationBound computing_bound(const GenerationPlan& plan, const GeneratorOptions& options,
                                std::uint64_t kv_token_bytes, int ranks, const GenerationWork& work,
                                const KnownRates& rates) {
  PassTime time = decode_pass(plan, options, kv_token_bytes, ranks, work, rates).time;
  time.stream = 0;
  return time.bound();
}

std::vector<std::string> generation_plan_lines(const GenerationPlan& plan,
                                               const GeneratorOptions& options,
                                               std::uint64_t kv_token_bytes, int ranks,
                                               const GenerationWork& work, const KnownRates& rates,
                                               const std::vector<OtherWeights>& others) {
  const DecodePass pass = decode_pass(plan, options, kv_token_bytes, ranks, work, rates);
  std::vector<std::string> lines{memory_line(plan), streams_line(plan)};
  std::string lanes = fmt::format("products {}, memory {}", format_seconds(pass.time.compute),
                                  format_seconds(pass.time.memory));
  if (plan.streamed > 0) lanes += fmt::format(", drive {}", format_seconds(pass.time.stream));
  const double all = static_cast<double>(ranks);
  lines.push_back(fmt::format(
      "a pass with a token for each of {}: at least {} ({}), bound by {}: {:.3g} tokens/s",
      texts_of(pass.shape.batch * ranks), format_seconds(pass.time.seconds()), lanes,
      words(pass.time.bound()), all * static_cast<double>(pass.shape.batch) / pass.time.seconds()));
  if (work.texts > 0) {
    const double rate = all * mixed_tokens_per_second(pass.cost, pass.rates, pass.shape);
    lines.push_back(fmt::format("{}, {} tokens of prompt and up to {} new ones: about {}",
                                texts_of(work.texts), work.prompt_tokens, work.new_tokens,
                                format_seconds(static_cast<double>(work.new_tokens) / rate)));
  }
  for (const OtherWeights& other : others) {
    const DecodePass its = decode_pass(other.plan, options, kv_token_bytes, ranks, work, rates);
    lines.push_back(fmt::format("--weights {} would stream {} and take {}", other.name,
                                format_bytes(other.plan.streamed),
                                format_seconds(its.time.seconds())));
  }
  std::vector<std::string> remedies;
  for (const RateOrigin& origin : rates.origins) {
    const bool known =
        origin.remedy.empty() || std::ranges::find(remedies, origin.remedy) != remedies.end();
    if (!known) remedies.push_back(origin.remedy);
  }
  if (!remedies.empty()) {
    lines.push_back(fmt::format("times are rough until this machine is measured: {}",
                                fmt::join(remedies, ", ")));
  }
  return lines;
}

}  // namespace strata
