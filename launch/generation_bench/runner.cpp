#include "launch/generation_bench/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "core/error.h"
#include "launch/generation/weight_names.h"
#include "launch/generation_bench/throttled_engine.h"
#include "parallel/generator.h"
#include "parallel/text_generation.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// What keys and values are quantised to; none: they are not.
std::optional<Dtype> kv_format(const std::string& kv) {
  for (const WeightName& quantized : kQuantizedWeights) {
    if (kv == quantized.name) return quantized.dtype;
  }
  return std::nullopt;
}

bool on_drive(const GenerationSetup& setup) { return !setup.tier.directory.empty(); }

KvShape kv_shape_of(const PretrainedModel& model, const GenerationSetup& setup) {
  const Dtype compute = storage_of(setup.weights, setup.kv).compute;
  return kv_shape(model.model(), kv_format(setup.kv).value_or(compute));
}

/// In memory everything stays; on a drive nothing does, however much room there is: it is the drive
/// that is measured.
GeneratorOptions engine_options(const PretrainedModel& model, const GenerationSetup& setup,
                                std::int64_t batch) {
  GeneratorOptions options;
  const WeightStorage storage = storage_of(setup.weights, setup.kv);
  options.compute = storage.compute;
  options.weights = storage.weights;
  options.kv = kv_format(setup.kv);
  options.sequences = batch;
  options.sequence_tokens = setup.prompt + setup.generated;
  options.rows = setup.rows;
  const std::int64_t pages = pages_for(options.sequence_tokens);
  options.kv_bytes =
      static_cast<std::uint64_t>(batch * pages) * kv_shape_of(model, setup).page_bytes();
  options.residency = !on_drive(setup);
  if (on_drive(setup)) options.swap = {{setup.tier.directory}};
  options.io = setup.io;
  if (setup.tier.read_limit > 0) {
    options.make_engine = [limit = setup.tier.read_limit](const IoEngineOptions& io) {
      return make_throttled_engine(make_io_engine(io), limit);
    };
  }
  return options;
}

/// Ids without meaning; no two texts begin alike.
std::vector<std::int32_t> any_prompt(std::int64_t text, std::int64_t tokens,
                                     std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * 7919 + text * 104729 + 1) % vocabulary));
  }
  return ids;
}

/// What passes that computed no prompt took together.
class DecodeClock {
 public:
  void after_pass(const GenerationProgress& progress) {
    const Clock::time_point now = Clock::now();
    const bool first = prompt_tokens_ < 0;
    if (!first && progress.prompt_tokens == prompt_tokens_) {
      seconds_ += std::chrono::duration<double>(now - last_).count();
      ++passes_;
    }
    prompt_tokens_ = progress.prompt_tokens;
    last_ = now;
  }
  double seconds_per_pass() const { return passes_ > 0 ? seconds_ / passes_ : 0; }

 private:
  Clock::time_point last_ = Clock::now();
  std::int64_t prompt_tokens_ = -1;  // before the first pass
  double seconds_ = 0;
  int passes_ = 0;
};

/// Runs texts of one length. One object for all cells: what it keeps of finished texts gives way to
/// those that come, and no text begins like an earlier one, so nothing is shared.
class TextRuns {
 public:
  /// @param most texts at once
  TextRuns(const Context& context, Generator& generator, std::int64_t most)
      : generator_(generator), texts_(context, generator, {.max_sequences = most}) {}

  const GenerationPlan& plan() const { return generator_.plan(); }

  /// @throws Error with the engine's words if a text was not served
  GenerationMeasurement run(const GenerationShape& shape) {
    GenerationMeasurement measured;
    std::string error;
    std::int64_t left = shape.batch;
    DecodeClock decoding;
    const std::uint64_t read_before = generator_.bytes_read();
    const Clock::time_point begin = Clock::now();
    const auto finish = [&](const GenerationResult& result) {
      if (result.reason == FinishReason::kError) error = result.error;
      measured.tokens += static_cast<std::int64_t>(result.ids.size());
      measured.prefill_seconds = std::max(measured.prefill_seconds, result.seconds_to_first_token);
    };
    texts_.run(
        [&]() -> std::optional<GenerationRequest> {
          if (left-- <= 0) return {};
          return request(shape, finish);
        },
        [&](const GenerationProgress& progress) { decoding.after_pass(progress); });
    measured.seconds = seconds_since(begin);
    if (!error.empty()) throw Error(error);
    measured.decode_seconds = decoding.seconds_per_pass();
    measured.prompt_tokens = shape.batch * shape.prompt;
    measured.bytes_read = static_cast<double>(generator_.bytes_read() - read_before);
    return measured;
  }

 private:
  GenerationRequest request(const GenerationShape& shape,
                            std::function<void(GenerationResult)> finish) {
    GenerationRequest request;
    request.prompt = any_prompt(next_, shape.prompt, generator_.model().vocabulary_size());
    request.max_new_tokens = shape.generated;
    request.stream = static_cast<std::uint64_t>(next_++);
    request.on_finish = std::move(finish);
    return request;
  }

  Generator& generator_;
  TextGeneration texts_;
  std::int64_t next_ = 0;  // number of a text
};

/// Fills in what the machine could have done, where all of it was measured.
void add_roofline(const PretrainedModel& model, const GenerationSetup& setup,
                  const GenerationPlan& plan, const GenerationShape& shape,
                  GenerationMeasurement& measured) {
  const WeightStorage storage = storage_of(setup.weights, setup.kv);
  const GenerationRates rates{
      .stream = setup.tier.bandwidth(),
      .memory = setup.machine.memory_read,
      .operations = setup.machine.products(storage.compute, storage.weights)};
  const bool knows_drive = !on_drive(setup) || rates.stream > 0;
  if (!knows_drive || rates.memory <= 0 || rates.operations <= 0) return;
  const GenerationCost cost{
      .streamed_bytes = static_cast<double>(plan.streamed),
      .weight_bytes = static_cast<double>(plan.weights),
      .operations_per_token = plan.operations_per_row,
      .operations_per_logits = plan.operations_per_logits,
      .kv_bytes_per_token = static_cast<double>(kv_shape_of(model, setup).page_bytes()) /
                            static_cast<double>(kPageTokens)};
  const GenerationRoofline roofline = generation_roofline(cost, rates, shape);
  measured.roofline_seconds = roofline.seconds;
  measured.bound = roofline.decode.bound();
}

GenerationMeasurement run_rounds(TextRuns& texts, const GenerationShape& shape, int rounds,
                                 EnergyRecorder& energy) {
  std::vector<GenerationMeasurement> measurements;
  for (int round = 0; round < rounds; ++round) {
    energy.begin();
    try {
      measurements.push_back(texts.run(shape));
    } catch (...) {
      energy.end();
      throw;
    }
    measurements.back().joules = energy.end().joules;
  }
  return median(std::move(measurements));
}

std::vector<GenerationCell> empty_cells(const PretrainedModel& model, const GenerationSetup& setup,
                                        const std::vector<std::int64_t>& batches) {
  std::vector<GenerationCell> cells;
  for (const std::int64_t batch : batches) {
    GenerationCell cell;
    cell.what = {.model = setup.model,
                 .tier = setup.tier.name,
                 .weights = setup.weights,
                 .kv = setup.kv,
                 .shape = {.batch = batch, .prompt = setup.prompt, .generated = setup.generated}};
    cell.parameters = static_cast<double>(model.model().parameter_count());
    cells.push_back(std::move(cell));
  }
  return cells;
}

/// Fills in the cells that fit. Exceptions leave the generator unusable, so they end all of it.
void measure_cells(const Context& context, const PretrainedModel& model,
                   const GenerationSetup& setup, const std::vector<GenerationCell*>& fitting,
                   EnergyRecorder& energy, const std::function<void(const std::string&)>& status) {
  std::int64_t largest = 0;
  for (const GenerationCell* cell : fitting) largest = std::max(largest, cell->what.shape.batch);
  GeneratorOptions options = engine_options(model, setup, largest);
  options.dram_bytes = setup.dram_bytes;
  status(fmt::format("{}: weights to {}", setup.model, setup.tier.name));
  Generator generator(context, model.model(), options, model.source());
  TextRuns texts(context, generator, largest);
  texts.run({.batch = 1, .prompt = 1, .generated = 2});  // warms up
  for (GenerationCell* const cell : fitting) {
    const GenerationShape& shape = cell->what.shape;
    status(fmt::format("{} on {}: batch {}", setup.model, setup.tier.name, shape.batch));
    GenerationMeasurement measured = run_rounds(texts, shape, setup.rounds, energy);
    add_roofline(model, setup, texts.plan(), shape, measured);
    cell->measured = measured;
  }
}

}  // namespace

WeightStorage storage_of(const std::string& weights, const std::string& kv) {
  std::optional<WeightStorage> found;
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kF32}) {
    if (weights == name(dtype)) found = WeightStorage{dtype, dtype};
  }
  for (const WeightName& quantized : kQuantizedWeights) {
    if (weights == quantized.name) found = WeightStorage{Dtype::kBf16, quantized.dtype};
  }
  if (!found) {
    throw UsageError(
        fmt::format("--weights: \"{}\" is not one of bf16, fp32, int8, int4", weights));
  }
  const WeightStorage& storage = *found;
  if (kv != name(storage.compute) && !kv_format(kv)) {
    throw UsageError(fmt::format(
        "--kv: with weights in {} keys and values are kept in {}, int8 or int4, not in {}", weights,
        name(storage.compute), kv));
  }
  return storage;
}

std::optional<GenerationMisfit> find_misfit(const PretrainedModel& model,
                                            const GenerationSetup& setup, std::int64_t batch) {
  const GeneratorOptions options = engine_options(model, setup, batch);
  const GenerationPlan wanted = plan_generation(model.model(), 0, 1, options, {});
  if (wanted.dram() > setup.dram_bytes) {
    return GenerationMisfit{"memory", wanted.dram(), setup.dram_bytes};
  }
  if (on_drive(setup) && wanted.swap > setup.drive_bytes) {
    return GenerationMisfit{"drive", wanted.swap, setup.drive_bytes};
  }
  return {};
}

GenerationMeasurement median(std::vector<GenerationMeasurement> measurements) {
  expects(!measurements.empty(), "there is no median of nothing");
  std::sort(measurements.begin(), measurements.end(),
            [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return measurements[(measurements.size() - 1) / 2];
}

std::vector<GenerationCell> run_generation_cells(
    const Context& context, const PretrainedModel& model, const GenerationSetup& setup,
    const std::vector<std::int64_t>& batches, EnergyRecorder& energy,
    const std::function<void(const std::string&)>& status) {
  std::vector<GenerationCell> cells = empty_cells(model, setup, batches);
  std::vector<GenerationCell*> fitting;
  try {
    for (GenerationCell& cell : cells) {
      cell.misfit = find_misfit(model, setup, cell.what.shape.batch);
      if (!cell.misfit) fitting.push_back(&cell);
    }
    if (!fitting.empty()) measure_cells(context, model, setup, fitting, energy, status);
  } catch (const Error& error) {
    for (GenerationCell& cell : cells) {
      if (!cell.measured && !cell.misfit) cell.refusal = error.what();
    }
  }
  return cells;
}

}  // namespace strata
