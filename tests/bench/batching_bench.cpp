// Tokens per second of many prompts of mixed length, batched continuously and in fixed batches of
// the same size: each batch begins when all texts of the one before have ended. Both take the same
// prompts through the same engine, in turns; fixed batches are not padded, only waited for.
//
// Lengths are drawn log-uniformly, as offline jobs have them: many short texts, few long ones.
//
//   strata_batching_bench --model DIR --texts 1000 --batch 32 [--residency none]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <CLI/CLI.hpp>

#include "core/random.h"
#include "core/units.h"
#include "launch/runtime.h"
#include "tests/bench/served_texts.h"

namespace strata {
namespace {

struct Options {
  std::string model;
  std::string residency = "auto";
  std::int64_t texts = 1000;
  std::int64_t batch = 32;
  std::int64_t rounds = 1;
  std::int64_t shortest_prompt = 8, longest_prompt = 256;
  std::int64_t shortest_answer = 8, longest_answer = 256;
};

/// Log-uniform between two lengths, by counter.
std::int64_t length(std::uint64_t index, int which, std::int64_t least, std::int64_t most) {
  const auto word = philox({static_cast<std::uint32_t>(index), 0, 0, 0},
                           {7, static_cast<std::uint32_t>(which)})[0];
  const double u = static_cast<double>(word) / 0x1p32;
  const double drawn = static_cast<double>(least) *
                       std::pow(static_cast<double>(most) / static_cast<double>(least), u);
  return std::clamp(static_cast<std::int64_t>(std::lround(drawn)), least, most);
}

std::vector<GenerationRequest> make_requests(const Options& options, std::int64_t vocabulary) {
  std::vector<GenerationRequest> requests;
  for (std::int64_t i = 0; i < options.texts; ++i) {
    const auto index = static_cast<std::uint64_t>(i);
    GenerationRequest& request = requests.emplace_back();
    request.prompt.resize(static_cast<std::size_t>(
        length(index, 0, options.shortest_prompt, options.longest_prompt)));
    for (std::size_t t = 0; t < request.prompt.size(); ++t) {  // no two begin alike
      request.prompt[t] = static_cast<std::int32_t>((index * 7919 + t * 104729 + 1) %
                                                    static_cast<std::uint64_t>(vocabulary));
    }
    request.max_new_tokens = length(index, 1, options.shortest_answer, options.longest_answer);
  }
  return requests;
}

/// Serves the texts `size` at a time.
ServedTexts measure(const Context& context, Generator& generator, const Options& options,
                    std::span<const GenerationRequest> requests, std::size_t size) {
  ServedTexts all;
  for (std::size_t first = 0; first < requests.size(); first += size) {
    TextGeneration texts(context, generator, {.max_sequences = options.batch});
    const ServedTexts served =
        serve(texts, requests.subspan(first, std::min(size, requests.size() - first)));
    all.seconds += served.seconds;
    all.tokens += served.tokens;
    all.passes += served.passes;
  }
  return all;
}

int compare(Runtime& runtime, const Options& options) {
  PretrainedModel model = load_pretrained(options.model);
  model.freeze_all();
  GeneratorOptions wanted;
  wanted.sequences = options.batch;
  wanted.sequence_tokens = options.longest_prompt + options.longest_answer;
  wanted.residency = options.residency != "none";
  const Context context = runtime.context();
  Generator generator(context, model.model(), wanted, model.source(), model.locator());
  const std::vector<GenerationRequest> requests =
      make_requests(options, model.model().vocabulary_size());
  std::vector<double> ratios;
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    double rates[2] = {};
    for (const bool continuous : {true, false}) {
      const auto size = continuous ? requests.size() : static_cast<std::size_t>(options.batch);
      const ServedTexts done = measure(context, generator, options, requests, size);
      rates[continuous ? 0 : 1] = done.tokens_per_second();
      fmt::print("{:<11} {} tokens in {:.1f} s and {} passes: {:.1f} tokens/s\n",
                 continuous ? "continuous" : "fixed", done.tokens, done.seconds, done.passes,
                 done.tokens_per_second());
    }
    ratios.push_back(rates[0] / rates[1]);
  }
  std::sort(ratios.begin(), ratios.end());
  fmt::print("continuous over fixed: {:.2f}\n", ratios[ratios.size() / 2]);
  return 0;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    strata::Options options;
    CLI::App app("Tokens per second of continuous and of fixed batches");
    app.add_option("--model", options.model, "a model directory")->required();
    app.add_option("--residency", options.residency)
        ->check(CLI::IsMember({"auto", "none"}))
        ->capture_default_str();
    app.add_option("--texts", options.texts)->capture_default_str();
    app.add_option("--batch", options.batch, "texts in flight at most")->capture_default_str();
    app.add_option("--rounds", options.rounds)->capture_default_str();
    app.add_option("--longest_prompt", options.longest_prompt)->capture_default_str();
    app.add_option("--longest_answer", options.longest_answer)->capture_default_str();
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error);
    }
    return strata::compare(runtime, options);
  });
}
