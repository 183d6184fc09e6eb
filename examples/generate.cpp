// Text generation of one's own: every line of a file is a prompt that a Hugging Face model goes on
// with, also when its weights are larger than memory.
//
//     mpirun -n 2 generate model prompts.txt [swap directory]
//
// Ranks take lines in turn and print what follows them as texts end. How tokens are chosen and what
// ends a text is what the model's generation_config.json says.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "launch/strata.h"

namespace {

constexpr std::int64_t kSequences = 64;  // in flight on a rank: a pass over the weights serves all
constexpr std::int64_t kNewTokens = 128;
constexpr std::int64_t kLongest = 1024;  // tokens of a text, its prompt too

struct Paths {
  std::filesystem::path model, prompts, swap;
};

/// The lines of a file that are this rank's.
class Lines {
 public:
  Lines(const std::filesystem::path& path, int rank, int ranks)
      : file_(path), rank_(rank), ranks_(ranks) {
    if (!file_) throw strata::UsageError(fmt::format("{}: cannot be read", path.string()));
  }
  std::optional<std::string> next() {
    for (std::string line; std::getline(file_, line);) {
      if (++count_ % ranks_ == rank_) return line;
    }
    return std::nullopt;
  }
  std::int64_t number() const { return count_; }  // of the last one, from 1

 private:
  std::ifstream file_;
  int rank_, ranks_;
  std::int64_t count_ = 0;
};

void generate(strata::Runtime& runtime, const Paths& paths) {
  strata::Communicator& world = runtime.communicator();
  Lines lines(paths.prompts, world.rank(), world.size());
  strata::PretrainedModel model = strata::load_pretrained(paths.model);
  model.freeze_all();
  const strata::Tokenizer& tokenizer = model.tokenizer();
  const strata::GenerationSettings settings =
      strata::read_generation_config(paths.model, tokenizer).settings;
  runtime.log(describe(settings, tokenizer));

  strata::GeneratorOptions options;
  options.sequences = kSequences;
  options.sequence_tokens = std::min(kLongest, model.config().max_positions);
  if (!paths.swap.empty()) options.swap = {{.path = paths.swap.string()}};
  strata::Generator generator(runtime.context(), model.model(), options, model.source(),
                              model.locator());
  strata::TextGeneration texts(
      runtime.context(), generator,
      {.max_sequences = kSequences,
       .max_tokens = options.sequence_tokens,
       .unknown = strata::unknown_ids(tokenizer, model.config().vocab_size)});

  texts.run([&]() -> std::optional<strata::GenerationRequest> {
    const std::optional<std::string> line = lines.next();
    if (!line || runtime.stop_requested()) return std::nullopt;  // Ctrl-C: ends what is in flight
    strata::GenerationRequest request;
    request.prompt = tokenizer.encode(*line, {.add_special = true});
    request.max_new_tokens = kNewTokens;
    request.sampling = settings.sampling;
    request.stop_ids = settings.stop_ids;
    request.stream = static_cast<std::uint64_t>(lines.number());
    request.on_finish = [&tokenizer, number = lines.number()](strata::GenerationResult result) {
      fmt::print("{}: {}\n", number,
                 result.error.empty() ? tokenizer.decode(result.ids) : result.error);
    };
    return request;
  });
}

}  // namespace

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    if (argc < 3 || argc > 4) {
      throw strata::UsageError("generate takes: MODEL_DIRECTORY PROMPTS.txt [SWAP_DIRECTORY]");
    }
    generate(runtime, {argv[1], argv[2], argc == 4 ? argv[3] : ""});
  });
}
