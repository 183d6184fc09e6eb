#include "launch/cli/generator_setup.h"

#include <fmt/format.h>

#include <vector>

#include <CLI/CLI.hpp>

#include "checkpoint/quantized_weights.h"
#include "core/cache.h"
#include "core/progress.h"
#include "core/units.h"
#include "launch/cli/flags.h"
#include "launch/cli/placement.h"
#include "launch/core_binding.h"
#include "launch/generation/weight_names.h"
#include "parallel/generator.h"

namespace strata::cli {
namespace {

std::filesystem::path cache_of(const KeptOptions& kept) {
  return kept.cache.empty() ? default_cache() : kept.cache;
}

/// Everything where it would be read in place: what a plan is like once weights were made.
ParameterLocator kept_as(const WeightStorage& storage) {
  return [storage](Parameter parameter) {
    return StoredParameter{.path = {}, .offset = 0, .dtype = storage.of(*parameter)};
  };
}

class Setup {
 public:
  Setup(const Context& context, const PretrainedModel& model, const PlacementOptions& placement,
        const KeptOptions& kept, const GeneratorNeeds& needs)
      : context_(context),
        model_(model),
        placement_(placement),
        kept_(kept),
        needs_(needs),
        drives_(examine_swap(placement, warnings_)) {
    options_ = make_generator_options(placement, local_rank().size, drives_);
    options_.weights = weights();
    options_.kv_bytes = kept.kv_memory;
    options_.kv_swap_bytes = kept.kv_swap.value_or(0);
    if (is_quantized(kept.kv)) options_.kv = kept.kv;
    options_.sequence_tokens = needs.sequence_tokens;
  }

  GeneratorSetup run() {
    rates_ = rate_inputs();
    options_.sequences = batch();
    print_plan();
    return {options_, locator(), hidden_rows_, computing_};
  }

 private:
  GenerationPlan plan(const GeneratorOptions& options, const ParameterLocator& locator) const {
    return plan_generation(model_.model(), context_.communicator.rank(),
                           context_.communicator.size(), options, locator);
  }

  /// As flags and the model's directory have it.
  Dtype weights() const {
    const std::optional<WeightStorage>& own = model_.kept();
    if (!own) return kept_.weights;
    if (is_quantized(kept_.weights) && kept_.weights != own->weights) {
      throw UsageError(fmt::format("--weights {}: {} has its weights in {} only",
                                   weight_name(kept_.weights), model_.directory().string(),
                                   weight_name(own->weights)));
    }
    return own->weights;
  }
  /// Whether weights come from the cache.
  bool from_cache() const { return is_quantized(options_.weights) && !model_.kept(); }

  GenerationPlan own_plan(std::int64_t sequences) const {
    const WeightStorage storage{options_.compute, options_.weights};
    GeneratorOptions options = options_;
    options.sequences = sequences;
    return plan(options, from_cache() ? kept_as(storage) : model_.locator());
  }

  RateInputs rate_inputs() {
    // What streams comes from the drive of the model's files, or of the cache.
    PlacementOptions from = placement_;
    if (from.swap.empty()) {
      from.swap = {from_cache() ? cache_of(kept_) : model_.directory()};
    }
    std::vector<std::string> ignored;
    RateInputs inputs = measured_rates(examine_swap(from, ignored), warnings_);
    inputs.compute = options_.compute;
    inputs.weights = options_.weights;
    inputs.ranks = context_.communicator.size();
    inputs.ranks_per_node = local_rank().size;
    inputs.updates = false;
    return inputs;
  }
  KnownRates rates(const GenerationPlan& plan) const {
    RateInputs inputs = rates_;
    inputs.swaps = plan.streamed > 0;
    return known_rates(inputs);
  }

  /// Texts in flight on a rank, alike on all of them.
  std::int64_t batch() {
    const auto hidden = [this](std::int64_t sequences) {
      const GenerationPlan own = own_plan(sequences);
      return hidden_rows(own, rates(own), rates_.ranks);
    };
    const std::int64_t own = choose_batch(needs_.batch, needs_.sequences, hidden);
    return -static_cast<std::int64_t>(context_.communicator.max(-static_cast<double>(own)));
  }

  void print_plan() {
    const GenerationPlan own = own_plan(options_.sequences);
    std::vector<OtherWeights> others;
    if (own.streamed > 0 && !is_quantized(options_.weights)) {
      for (const WeightName& named : kQuantizedWeights) {
        GeneratorOptions other = options_;
        other.weights = named.dtype;
        others.push_back({named.name, plan(other, kept_as({other.compute, other.weights}))});
      }
    }
    const std::uint64_t token = token_bytes(options_.kv_dtype());
    const KnownRates known = rates(own);
    hidden_rows_ = hidden_rows(own, known, rates_.ranks);
    computing_ = computing_bound(own, options_, token, rates_.ranks, needs_.work, known);
    for (const std::string& warning : warnings_) context_.log.warn(warning);
    for (const std::string& line :
         generation_plan_lines(own, options_, token, rates_.ranks, needs_.work, known, others)) {
      context_.log.info(line);
    }
    const std::int64_t wanted = options_.sequences * options_.sequence_tokens;
    const auto held = static_cast<std::int64_t>(own.kv / token);
    if (options_.kv || held >= wanted) return;
    for (const WeightName& named : kQuantizedWeights) {
      context_.log.info(
          fmt::format("keys and values: room for {} tokens of {}; --kv {} would have room for {}",
                      held, wanted, named.name, own.kv / token_bytes(named.dtype)));
    }
  }
  std::uint64_t token_bytes(Dtype dtype) const {
    return kv_shape(model_.model(), dtype).page_bytes() / kPageTokens;
  }

  ParameterLocator locator() {
    if (!from_cache()) return model_.locator();
    std::optional<Progress> bar;
    const auto find_or_make = [&] {
      return quantized_weights(
          model_, {options_.compute, options_.weights}, cache_of(kept_),
          [&](std::uint64_t done, std::uint64_t all) {
            if (!bar) {
              context_.log.info(fmt::format("quantising to {}: {} into {}",
                                            weight_name(options_.weights), format_bytes(all),
                                            cache_of(kept_).string()));
              bar.emplace(context_.log, "MiB", all >> 20, needs_.progress);
            }
            bar->update(done >> 20);
          });
    };
    ParameterLocator found;
    if (local_rank().rank == 0) found = find_or_make();
    context_.communicator.barrier();
    return found ? found : find_or_make();
  }

  Context context_;
  const PretrainedModel& model_;
  const PlacementOptions& placement_;
  const KeptOptions& kept_;
  const GeneratorNeeds& needs_;
  std::vector<std::string> warnings_;
  std::vector<SwapDrive> drives_;
  GeneratorOptions options_;
  RateInputs rates_;
  std::int64_t hidden_rows_ = 1;
  GenerationBound computing_ = GenerationBound::kCompute;
};

}  // namespace

void add_weights_flag(CLI::App& app, Dtype& weights, const std::string& help, const char* flag) {
  std::vector<std::pair<std::string, Dtype>> names{{"bf16", Dtype::kBf16}};
  for (const WeightName& named : kQuantizedWeights) names.emplace_back(named.name, named.dtype);
  add_choice<Dtype>(app, flag, weights, names, help);
}

void add_kept_flags(CLI::App& app, KeptOptions& options) {
  add_size(app, "--kv_memory", options.kv_memory,
           "memory of a rank for keys and values; default what --dram has room for");
  add_size(app, "--kv_swap", options.kv_swap,
           "of the --swap directories, a rank, for keys and values of texts that have to wait for "
           "memory; default none: they are computed again");
  add_weights_flag(app, options.kv,
                   "what keys and values are kept as; bf16: as --compute says. int8 and int4 are "
                   "rounded once, as they come",
                   "--kv");
  add_weights_flag(app, options.weights,
                   "what matrices are kept as; bf16: as --compute says. int8 and int4 are made "
                   "once and kept in --cache");
  add_path(app, "--cache", options.cache, "DIR",
           "keeps quantised weights; default: $XDG_CACHE_HOME/strata or ~/.cache/strata");
  add_switch(
      app, "--batch_invariant", options.batch_invariant,
      "in bf16, too, a text gets the same bits whatever others are computed beside it; slower "
      "products");
}

int run_generation(const PlacementOptions& placement, const KeptOptions& kept,
                   const std::function<int(Runtime&)>& body) {
  RuntimeOptions runtime;
  // Whoever asks for fp32 asks for numbers that can be compared.
  runtime.batch_invariant = kept.batch_invariant || placement.compute == Dtype::kF32;
  return run_job(body, runtime);
}

GeneratorSetup set_up_generator(const Context& context, const PretrainedModel& model,
                                const PlacementOptions& placement, const KeptOptions& kept,
                                const GeneratorNeeds& needs) {
  return Setup(context, model, placement, kept, needs).run();
}

}  // namespace strata::cli
