#include "launch/generation_bench/roofline.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace strata {
namespace {

double seconds_at(double amount, double per_second) {
  return per_second > 0 ? amount / per_second : 0;
}

PassLoad prefill_load(const GenerationShape& shape) {
  // Attention reads a prompt's keys and values in tiles: each of them at least once.
  const auto batch = static_cast<double>(shape.batch);
  const double tokens = batch * static_cast<double>(shape.prompt);
  return {.tokens = tokens, .logits = batch, .attended_tokens = tokens};
}

PassLoad mean_decode_load(const GenerationShape& shape) {
  const auto batch = static_cast<double>(shape.batch);
  const double length =
      static_cast<double>(shape.prompt) + static_cast<double>(shape.generated) / 2;
  return {.tokens = batch, .logits = batch, .attended_tokens = batch * length};
}

}  // namespace

const char* name(GenerationBound bound) noexcept {
  switch (bound) {
    case GenerationBound::kStream:
      return "stream";
    case GenerationBound::kCompute:
      return "compute";
    case GenerationBound::kMemory:
      return "memory";
  }
  return "";
}

double PassTime::seconds() const noexcept { return std::max({stream, compute, memory}); }

GenerationBound PassTime::bound() const noexcept {
  if (stream >= compute && stream >= memory) return GenerationBound::kStream;
  return compute >= memory ? GenerationBound::kCompute : GenerationBound::kMemory;
}

PassTime pass_time(const GenerationCost& cost, const GenerationRates& rates, const PassLoad& load) {
  const double operations =
      load.tokens * cost.operations_per_token + load.logits * cost.operations_per_logits;
  return {.stream = seconds_at(cost.streamed_bytes, rates.stream),
          .compute = seconds_at(operations, rates.operations),
          .memory = seconds_at(cost.weight_bytes + load.attended_tokens * cost.kv_bytes_per_token,
                               rates.memory)};
}

GenerationRoofline generation_roofline(const GenerationCost& cost, const GenerationRates& rates,
                                       const GenerationShape& shape) {
  expects(shape.batch > 0 && shape.prompt > 0 && shape.generated > 0,
          "a roofline needs a batch, a prompt and generated tokens");
  GenerationRoofline roofline;
  roofline.prefill = pass_time(cost, rates, prefill_load(shape));
  roofline.decode = pass_time(cost, rates, mean_decode_load(shape));
  roofline.seconds = roofline.prefill.seconds() +
                     static_cast<double>(shape.generated - 1) * roofline.decode.seconds();
  const auto tokens = static_cast<double>(shape.batch * shape.generated);
  roofline.tokens_per_second = roofline.seconds > 0 ? tokens / roofline.seconds : 0;
  return roofline;
}

double mixed_tokens_per_second(const GenerationCost& cost, const GenerationRates& rates,
                               const GenerationShape& shape) {
  const auto passes = static_cast<double>(shape.generated);
  const PassTime prefill = pass_time(cost, rates, prefill_load(shape));
  const PassTime decode = pass_time(cost, rates, mean_decode_load(shape));
  const double slowest = std::max(
      {passes * decode.stream, prefill.compute + passes * decode.compute, passes * decode.memory});
  return slowest > 0 ? static_cast<double>(shape.batch) * passes / slowest : 0;
}

double crossing_batch(const GenerationCost& cost, const GenerationRates& rates) {
  const double operations = cost.operations_per_token + cost.operations_per_logits;
  const double compute = seconds_at(operations, rates.operations);
  if (compute <= 0) return std::numeric_limits<double>::infinity();
  return seconds_at(cost.streamed_bytes, rates.stream) / compute;
}

}  // namespace strata
