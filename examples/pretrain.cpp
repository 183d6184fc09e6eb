// A training loop of one's own: a Hugging Face model, or a fresh one of a preset, learns text
// files.
//
//     mpirun -n 2 pretrain --model=llama-26m --out=trained --steps=200 --swap=/nvme README.md ...
//
// Every rank runs this program. Each holds its share of the parameters, gradients and Adam state,
// behind the swap directory if there is one, and trains on its share of every batch.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "launch/strata.h"

namespace {

namespace fs = std::filesystem;

/// "--name=value" by name, and the text files.
struct Arguments {
  std::map<std::string, std::string> options{
      {"model", "llama-26m"},  // a directory or the name of a preset
      {"out", ""},             // where the trained model goes
      {"swap", ""},            // directory of the swap tier; empty: everything stays in memory
      {"dram", ""},            // budget of a rank, "2GiB"; empty: as much as it takes
      {"steps", "100"},
      {"sequence_length", "256"},
      {"sequences", "4"},      // of a micro-batch
      {"micro_batches", "1"},  // of a step, per rank
      {"learning_rate", "1e-3"},
  };
  std::vector<fs::path> files;

  Arguments(int argc, char** argv) {
    for (const std::string& word : std::vector<std::string>(argv + 1, argv + argc)) {
      const std::size_t equals = word.find('=');
      if (!word.starts_with("--")) {
        files.emplace_back(word);
      } else if (equals != word.npos && options.contains(word.substr(2, equals - 2))) {
        options[word.substr(2, equals - 2)] = word.substr(equals + 1);
      } else {
        throw strata::UsageError(word + ": is no option; see the top of pretrain.cpp");
      }
    }
    if (options.at("out").empty()) throw strata::UsageError("--out=DIR is needed");
  }
  const std::string& text(const std::string& name) const { return options.at(name); }
  std::int64_t whole(const std::string& name) const {
    const double value = number(name);
    if (value < 1 || value > 1e9 || value != static_cast<double>(static_cast<long>(value))) {
      throw strata::UsageError(fmt::format("--{}={}: is no positive number", name, text(name)));
    }
    return static_cast<std::int64_t>(value);
  }
  double number(const std::string& name) const {
    std::size_t used = 0;
    try {
      const double value = std::stod(text(name), &used);
      if (used == text(name).size()) return value;
    } catch (const std::exception&) {
    }
    throw strata::UsageError(fmt::format("--{}={}: is no number", name, text(name)));
  }
};

strata::TrainerOptions trainer_options(const Arguments& arguments) {
  const std::int64_t steps = arguments.whole("steps");
  strata::TrainerOptions options;
  options.shape = {.micro_batches = static_cast<int>(arguments.whole("micro_batches")),
                   .sequences = arguments.whole("sequences"),
                   .sequence_length = arguments.whole("sequence_length")};
  options.schedule = {.kind = strata::ScheduleKind::kCosine,
                      .learning_rate = arguments.number("learning_rate"),
                      .warmup_steps = steps / 20,
                      .total_steps = steps};
  options.adamw.weight_decay = 0.1;
  options.max_grad_norm = 1.0;
  if (!arguments.text("swap").empty()) options.placement.swap = {{.path = arguments.text("swap")}};
  if (!arguments.text("dram").empty()) {
    options.placement.dram_bytes = strata::parse_bytes("--dram", arguments.text("dram"));
  }
  return options;
}

strata::PretrainedModel load_or_init(const std::string& model) {
  if (fs::is_directory(model)) return strata::load_pretrained(model);
  return strata::init_pretrained(strata::preset(model), 42);
}

void train(strata::Runtime& runtime, const Arguments& arguments) {
  strata::Communicator& world = runtime.communicator();
  strata::PretrainedModel model = load_or_init(arguments.text("model"));
  strata::check_save_target(model.config(), arguments.text("out"));  // now, not after hours
  const strata::TrainerOptions options = trainer_options(arguments);
  strata::TrainingData data = strata::open_data(arguments.files, {}, model.tokenizer(),
                                                {.sequence_length = options.shape.sequence_length});
  const strata::BatchShape shape{.sequences = options.shape.sequences,
                                 .micro_batches = options.shape.micro_batches,
                                 .rank = world.rank(),
                                 .ranks = world.size()};

  strata::Trainer trainer(runtime.context(), model.model(), options, model.source());
  runtime.log(fmt::format("{} parameters on {} ranks, {} of memory each",
                          model.model().parameter_count(), world.size(),
                          strata::format_bytes(trainer.memory_plan().dram())));
  for (std::int64_t step = 0; step < options.schedule.total_steps; ++step) {
    const strata::StepReport report = trainer.step(data.training->next(shape));
    runtime.log(fmt::format(
        "step {:4}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {:6.0f} tokens/s  swap {} read {} written",
        report.step, report.loss, report.gradient_norm, report.learning_rate,
        static_cast<double>(report.tokens) / report.seconds,
        strata::format_bytes(report.swap_bytes_read),
        strata::format_bytes(report.swap_bytes_written)));
    if (world.max(runtime.stop_requested() ? 1 : 0) > 0) break;  // Ctrl-C: save what there is
  }
  if (data.evaluation) {
    const strata::EvaluationPasses held_out(*data.evaluation, data.options, shape);
    runtime.log(
        fmt::format("held-out loss {:.4f}", strata::evaluate_all(trainer, held_out).loss()));
  }
  strata::save_pretrained(runtime.context(), trainer, model, arguments.text("out"));
  runtime.log("saved to " + arguments.text("out"));
}

}  // namespace

int main(int argc, char** argv) {
  return strata::run(argc, argv,
                     [&](strata::Runtime& runtime) { train(runtime, Arguments(argc, argv)); });
}
