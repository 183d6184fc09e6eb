// What speculation brings: tokens per second without and with proposals, the weights streamed and
// in memory, for texts at both ends of what they can be. Prompts are all of the ids that answers
// are made of, each text's in another order.
//
//   repeats   greedy: with fresh weights such a text soon runs in a circle, so that nearly all
//             proposals are accepted. The best case, not what a trained model does.
//   random    each id as likely as any other, whatever the model says: there is something to
//             propose for every token, and nearly nothing is accepted. The worst case.
//
// Counts begin behind the prompts' passes. A batch is that many texts that begin together; those
// that get their tokens sooner leave it to the others. Values of --speculate take turns.
//
//   strata_speculation_bench --model llama-1b --swap DIR
//   strata_speculation_bench --model DIR
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>

#include <CLI/CLI.hpp>

#include "core/random.h"
#include "launch/runtime.h"
#include "tests/bench/served_texts.h"

namespace strata {
namespace {

struct Options {
  std::string model;
  std::string swap;
  std::vector<std::string> residencies = {"none", "all"};
  std::vector<std::int64_t> batches = {1, 4};
  std::vector<std::int64_t> speculate = {0, 2, 4, 8};
  std::int64_t speculate_rows = 0;
  std::int64_t prompt = 128;
  std::int64_t answer = 128;
  int rounds = 3;
};

/// So high that of two logits neither is likelier.
constexpr float kEvenTemperature = 1e6f;

/// `count` ids, spread over the vocabulary.
std::vector<std::int32_t> answer_ids(std::int64_t count, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>(i * vocabulary / count));
  }
  return ids;
}

std::vector<std::int32_t> all_but(const std::vector<std::int32_t>& ids, std::int64_t vocabulary) {
  std::vector<std::int32_t> others;
  for (std::int32_t id = 0; id < vocabulary; ++id) {
    if (!std::binary_search(ids.begin(), ids.end(), id)) others.push_back(id);
  }
  return others;
}

std::vector<GenerationRequest> make_requests(const std::vector<std::int32_t>& ids,
                                             std::int64_t count, std::int64_t answer,
                                             bool repeats) {
  std::vector<GenerationRequest> requests;
  for (std::int64_t text = 0; text < count; ++text) {
    GenerationRequest& request = requests.emplace_back();
    request.prompt = ids;
    for (std::size_t i = ids.size() - 1; i > 0; --i) {
      const std::uint32_t drawn = philox(
          {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(text), 0, 0}, {7, 0})[0];
      std::swap(request.prompt[i], request.prompt[drawn % (i + 1)]);
    }
    request.max_new_tokens = answer;
    request.stream = static_cast<std::uint64_t>(text);
    request.sampling.greedy = repeats;
    request.sampling.temperature = kEvenTemperature;
  }
  return requests;
}

/// Tokens, passes and seconds are those behind the prompts.
ServedTexts measure(const Context& context, Generator& generator, const Options& options,
                    const std::vector<GenerationRequest>& requests,
                    const std::vector<std::int32_t>& unknown, std::int64_t speculate) {
  using Clock = std::chrono::steady_clock;
  TextGeneration texts(context, generator,
                       {.max_sequences = static_cast<std::int64_t>(requests.size()),
                        .unknown = unknown,
                        .speculate = speculate,
                        .speculate_rows = options.speculate_rows});
  const auto prompts = static_cast<std::int64_t>(requests.size()) * options.prompt;
  std::optional<GenerationProgress> computed;  // when the prompts were
  const Clock::time_point begin = Clock::now();
  double prompt_seconds = 0;
  ServedTexts served = serve(texts, requests, [&](const GenerationProgress& progress) {
    if (computed || progress.prompt_tokens < prompts) return;
    computed = progress;
    prompt_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  });
  expects(computed.has_value(), "no prompt was shared");
  served.seconds -= prompt_seconds;
  served.tokens -= computed->tokens;
  served.passes -= computed->passes;
  return served;
}

void compare(const Context& context, Generator& generator, const Options& options,
             const std::string& residency, std::int64_t batch, bool repeats) {
  const std::int64_t vocabulary = generator.model().vocabulary_size();
  const std::vector<std::int32_t> ids = answer_ids(options.prompt, vocabulary);
  const std::vector<std::int32_t> unknown = all_but(ids, vocabulary);
  const std::vector<GenerationRequest> requests =
      make_requests(ids, batch, options.answer, repeats);
  std::vector<std::vector<ServedTexts>> rounds(options.speculate.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < rounds.size(); ++i) {
      rounds[i].push_back(
          measure(context, generator, options, requests, unknown, options.speculate[i]));
    }
  }
  const double first = median(rounds.front()).tokens_per_second();
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    const ServedTexts served = median(rounds[i]);
    const std::int64_t proposed = served.progress.proposed;
    const std::string accepted =
        proposed == 0 ? "-"
                      : fmt::format("{:.3f}", static_cast<double>(served.progress.accepted) /
                                                  static_cast<double>(proposed));
    fmt::print("{:<10} {:<8} {:>5} {:>9} {:>9.2f} {:>7.2f} {:>7} {:>12.2f} {:>9} {:>9}\n",
               residency, repeats ? "repeats" : "random", batch, options.speculate[i],
               served.tokens_per_second(), served.tokens_per_second() / first, served.passes,
               static_cast<double>(served.tokens) / static_cast<double>(served.passes), proposed,
               accepted);
  }
  std::fflush(stdout);
}

int run_bench(Runtime& runtime, const Options& options) {
  const Context context = runtime.context();
  const PretrainedModel model = open_model(options.model);
  const std::int64_t vocabulary = model.model().vocabulary_size();
  if (options.prompt > vocabulary) {
    throw UsageError(fmt::format("--prompt {}: a prompt has every id once, and there are {}",
                                 options.prompt, vocabulary));
  }
  fmt::print("{:<10} {:<8} {:>5} {:>9} {:>9} {:>7} {:>7} {:>12} {:>9} {:>9}\n", "residency",
             "texts", "batch", "speculate", "tokens/s", "times", "passes", "tokens/pass",
             "proposed", "accepted");
  for (const std::string& residency : options.residencies) {
    GeneratorOptions wanted;
    wanted.sequences = *std::max_element(options.batches.begin(), options.batches.end());
    wanted.sequence_tokens = options.prompt + options.answer;
    wanted.residency = residency == "all";
    if (!options.swap.empty()) wanted.swap = {{options.swap}};
    Generator generator(context, model.model(), wanted, model.source(), model.locator());
    Options warm_up = options;
    warm_up.answer = 2;
    measure(context, generator, warm_up,
            make_requests(answer_ids(options.prompt, vocabulary), 1, warm_up.answer, true), {}, 0);
    for (const bool repeats : {true, false}) {
      for (const std::int64_t batch : options.batches) {
        compare(context, generator, options, residency, batch, repeats);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    strata::Options options;
    CLI::App app("Tokens per second without and with speculation");
    app.add_option("--model", options.model, "a model directory, or a preset: fresh weights")
        ->required();
    app.add_option("--swap", options.swap, "for streamed weights of a preset");
    app.add_option("--residency", options.residencies, "of the weights")
        ->check(CLI::IsMember({"none", "all"}))
        ->capture_default_str();
    app.add_option("--batch", options.batches, "texts that begin together")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--speculate", options.speculate,
                   "proposals for a text; the others are compared with the first")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--speculate_rows", options.speculate_rows,
                   "rows that proposals fill a pass up to; 0: any")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--prompt", options.prompt, "tokens")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--answer", options.answer, "tokens")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    app.add_option("--rounds", options.rounds)->check(CLI::PositiveNumber)->capture_default_str();
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    return strata::run_bench(runtime, options);
  });
}
