// What it costs to have too little memory for keys and values: the same texts with
//
//   memory     memory for those of all texts in flight
//   swap       memory for --share of them; texts that are preempted wait on a drive (--kv_swap)
//   recompute  memory for as many, and no swap: texts that are preempted are computed again
//
// `stored` holds beginnings of finished texts, which go to the drive, too, as long as there is
// room; no text begins alike, so none is loaded. `prompt again` are prompts' tokens that were
// computed a second time; answers so far are, too, but not counted. The three take turns, each with
// a generator of its own; making it and a first text are not timed.
//
//   strata_kv_swap_bench --model llama-1b --swap DIR
#include <fmt/format.h>

#include <mutex>
#include <set>

#include <CLI/CLI.hpp>

#include "core/random.h"
#include "core/units.h"
#include "launch/runtime.h"
#include "swap/forwarding_io_engine.h"
#include "tests/bench/served_texts.h"

namespace strata {
namespace {

struct Options {
  std::string model;
  std::string swap;
  std::string residency = "auto";
  std::int64_t texts = 48;
  std::int64_t batch = 16;
  std::int64_t prompt = 128;
  std::int64_t answer = 256;
  double share = 0.5;
  int rounds = 3;
};

struct Arrangement {
  const char* name;
  bool all_in_memory;
  bool swaps;
};
constexpr Arrangement kArrangements[] = {
    {"memory", true, false}, {"swap", false, true}, {"recompute", false, false}};

/// Counts what is written, and what is read of files that were written: once the weights rest where
/// they stay, keys and values.
class CountingEngine final : public ForwardingIoEngine {
 public:
  using ForwardingIoEngine::ForwardingIoEngine;

  Event submit(std::span<const IoRequest> requests) override {
    {
      const std::lock_guard lock(mutex_);
      for (const IoRequest& request : requests) count(request);
    }
    return ForwardingIoEngine::submit(requests);
  }

  void reset() {
    const std::lock_guard lock(mutex_);
    written_.clear();
    stored_ = loaded_ = 0;
  }
  std::uint64_t stored() const { return stored_; }
  std::uint64_t loaded() const { return loaded_; }

 private:
  void count(const IoRequest& request) {
    if (request.kind == IoRequest::Kind::kWrite) {
      written_.insert(request.file.descriptor);
      stored_ += request.memory.size();
    } else if (written_.contains(request.file.descriptor)) {
      loaded_ += request.memory.size();
    }
  }

  std::mutex mutex_;
  std::set<int> written_;  // descriptors
  std::uint64_t stored_ = 0;
  std::uint64_t loaded_ = 0;
};

struct Measured {
  ServedTexts texts;
  std::uint64_t stored = 0;  // bytes
  std::uint64_t loaded = 0;
};

/// Texts from number `first` on, no two of which begin alike.
std::vector<GenerationRequest> make_requests(const Options& options, std::int64_t vocabulary,
                                             std::int64_t first, std::int64_t count) {
  std::vector<GenerationRequest> requests;
  for (std::int64_t text = first; text < first + count; ++text) {
    GenerationRequest& request = requests.emplace_back();
    for (std::int64_t i = 0; i < options.prompt; ++i) {
      const std::uint32_t drawn = philox(
          {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(text), 0, 0}, {7, 0})[0];
      request.prompt.push_back(
          static_cast<std::int32_t>(drawn % static_cast<std::uint32_t>(vocabulary)));
    }
    request.max_new_tokens = options.answer;
    request.stream = static_cast<std::uint64_t>(text);
  }
  return requests;
}

/// What all texts in flight take.
std::uint64_t kv_bytes_of_all(const Options& options, const Model& model, Dtype dtype) {
  const std::int64_t pages = options.batch * pages_for(options.prompt + options.answer);
  return static_cast<std::uint64_t>(pages) * kv_shape(model, dtype).page_bytes();
}

Measured measure(const Context& context, const PretrainedModel& model, const Options& options,
                 const Arrangement& arrangement) {
  CountingEngine* counts = nullptr;  // of the generator
  GeneratorOptions wanted;
  const std::uint64_t all = kv_bytes_of_all(options, model.model(), wanted.kv_dtype());
  wanted.sequences = options.batch;
  wanted.sequence_tokens = options.prompt + options.answer;
  wanted.residency = options.residency != "none";
  wanted.swap = {{options.swap}};
  wanted.kv_bytes = arrangement.all_in_memory
                        ? all
                        : static_cast<std::uint64_t>(options.share * static_cast<double>(all));
  if (arrangement.swaps) wanted.kv_swap_bytes = all;
  wanted.make_engine = [&](const IoEngineOptions& io) {
    auto engine = std::make_unique<CountingEngine>(make_io_engine(io));
    counts = engine.get();
    return engine;
  };
  Generator generator(context, model.model(), wanted, model.source(), model.locator());
  const std::int64_t vocabulary = model.model().vocabulary_size();
  {
    TextGeneration warm_up(context, generator, {.max_sequences = 1});
    serve(warm_up, make_requests(options, vocabulary, options.texts, 1));
  }
  counts->reset();
  TextGeneration texts(context, generator, {.max_sequences = options.batch});
  Measured measured;
  measured.texts = serve(texts, make_requests(options, vocabulary, 0, options.texts));
  measured.stored = counts->stored();
  measured.loaded = counts->loaded();
  return measured;
}

/// The middle one, by seconds. @pre not empty
Measured median(std::vector<Measured> rounds) {
  std::sort(rounds.begin(), rounds.end(),
            [](const Measured& a, const Measured& b) { return a.texts.seconds < b.texts.seconds; });
  return rounds[(rounds.size() - 1) / 2];
}

int run_bench(Runtime& runtime, const Options& options) {
  if (options.share * static_cast<double>(options.batch) < 1) {
    throw UsageError(
        fmt::format("--share {} of {} texts does not hold one; give more, or raise --batch",
                    options.share, options.batch));
  }
  const PretrainedModel model = open_model(options.model);
  std::vector<Measured> rounds[std::size(kArrangements)];
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < std::size(kArrangements); ++i) {
      rounds[i].push_back(measure(runtime.context(), model, options, kArrangements[i]));
    }
  }
  const std::uint64_t all = kv_bytes_of_all(options, model.model(), GeneratorOptions().kv_dtype());
  fmt::print("{} texts, {} in flight, whose keys and values take {}, or {:.2f} of that\n",
             options.texts, options.batch, format_bytes(all), options.share);
  fmt::print("{:<10} {:>9} {:>7} {:>7} {:>9} {:>8} {:>10} {:>10} {:>13}\n", "", "tokens/s", "times",
             "passes", "preempted", "swapped", "stored", "loaded", "prompt again");
  const double first = median(rounds[0]).texts.tokens_per_second();
  for (std::size_t i = 0; i < std::size(kArrangements); ++i) {
    const Measured measured = median(rounds[i]);
    const GenerationProgress& progress = measured.texts.progress;
    fmt::print(
        "{:<10} {:>9.2f} {:>7.2f} {:>7} {:>9} {:>8} {:>10} {:>10} {:>13}\n", kArrangements[i].name,
        measured.texts.tokens_per_second(), measured.texts.tokens_per_second() / first,
        measured.texts.passes, progress.preempted, progress.swapped, format_bytes(measured.stored),
        format_bytes(measured.loaded), progress.prompt_tokens - options.texts * options.prompt);
  }
  return 0;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    strata::Options options;
    CLI::App app("Tokens per second with memory for a part of the keys and values");
    app.add_option("--model", options.model, "a model directory, or a preset: fresh weights")
        ->required();
    app.add_option("--swap", options.swap, "a directory on the drive")->required();
    app.add_option("--residency", options.residency, "of the weights")
        ->check(CLI::IsMember({"auto", "none"}))
        ->capture_default_str();
    app.add_option("--texts", options.texts)->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--batch", options.batch, "texts in flight at most")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--prompt", options.prompt, "tokens")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--answer", options.answer, "tokens")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--share", options.share, "of the keys and values: what memory has room for")
        ->check(CLI::Range(0.0, 1.0))
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
