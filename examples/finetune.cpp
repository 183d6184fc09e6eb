// Fine-tuning of one's own: a Hugging Face model directory learns the answers of a JSONL file.
//
//     mpirun -n 2 finetune model rows.jsonl tuned [swap directory]
//
// Rows are {"messages"}, {"prompt", "completion"}, alpaca, sharegpt or {"text"}. The last twentieth
// is held out; the model of the epoch with the lowest loss there is what `tuned` gets.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "launch/strata.h"

namespace {

constexpr std::int64_t kEpochs = 3;
constexpr std::int64_t kSequenceLength = 512;

struct Paths {
  std::filesystem::path model, rows, out, swap;
};

strata::TrainingData open_rows(const Paths& paths, const strata::Tokenizer& tokenizer,
                               std::int64_t length) {
  strata::DataOptions options{.sequence_length = length};
  // Asked only if the rows are conversations.
  options.chat = [&paths, &tokenizer] {
    return strata::read_chat_template(paths.model, tokenizer);
  };
  return strata::open_data(std::vector{paths.rows}, {}, tokenizer, options);
}

void finetune(strata::Runtime& runtime, const Paths& paths) {
  strata::Communicator& world = runtime.communicator();
  strata::PretrainedModel model = strata::load_pretrained(paths.model);
  strata::check_save_target(model.config(), paths.out);  // now, not after hours
  const std::int64_t length = std::min(kSequenceLength, model.config().max_positions);
  const strata::TrainingData data = open_rows(paths, model.tokenizer(), length);

  strata::TrainerOptions options;
  options.shape = {.micro_batches = 4, .sequences = 2, .sequence_length = length};
  const strata::BatchShape shape{.sequences = options.shape.sequences,
                                 .micro_batches = options.shape.micro_batches,
                                 .rank = world.rank(),
                                 .ranks = world.size()};
  const std::int64_t per_step = shape.sequences * shape.micro_batches * world.size();
  const std::int64_t epoch = std::max<std::int64_t>(1, data.training->sequences() / per_step);
  options.schedule = {.kind = strata::ScheduleKind::kCosine,
                      .learning_rate = 2e-5,
                      .warmup_steps = kEpochs * epoch / 20,
                      .total_steps = kEpochs * epoch};
  if (!paths.swap.empty()) options.placement.swap = {{.path = paths.swap.string()}};
  strata::Trainer trainer(runtime.context(), model.model(), options, model.source());

  double best = std::numeric_limits<double>::infinity();
  while (trainer.steps_done() < options.schedule.total_steps) {
    const strata::StepReport report = trainer.step(data.training->next(shape));
    runtime.log(fmt::format("step {}/{} loss {:.4f}", report.step, options.schedule.total_steps,
                            report.loss));
    const bool stop = world.max(runtime.stop_requested() ? 1 : 0) > 0;  // Ctrl-C
    if (report.step % epoch != 0 && !stop) continue;
    double loss = 0;
    if (data.evaluation) {
      const strata::EvaluationPasses held_out(*data.evaluation, data.options, shape);
      loss = strata::evaluate_all(trainer, held_out).loss();
      runtime.log(fmt::format("held-out loss {:.4f}", loss));
    }
    if (loss < best) {
      strata::save_pretrained(runtime.context(), trainer, model, paths.out, {.overwrite = true});
      best = loss;
    }
    if (stop) break;
  }
}

}  // namespace

int main(int argc, char** argv) {
  return strata::run(argc, argv, [&](strata::Runtime& runtime) {
    if (argc < 4 || argc > 5) {
      throw strata::UsageError("finetune takes: MODEL_DIRECTORY ROWS.jsonl OUT [SWAP_DIRECTORY]");
    }
    finetune(runtime, {argv[1], argv[2], argv[3], argc == 5 ? argv[4] : ""});
  });
}
