#include "parallel/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <utility>

#include "parallel/trainer_state.h"
#include "parallel/trainer_visit.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

/// What the lanes and the drive had done at one moment.
struct Totals {
  explicit Totals(const Trainer::State& state)
      : now(Clock::now()), io(state.engine ? state.engine->counters() : IoCounters{}) {
    for (int i = 0; i < kLaneTimes; ++i) {
      seconds[static_cast<std::size_t>(i)] = state.clock.seconds(static_cast<LaneTime>(i));
    }
  }
  Clock::time_point now;
  IoCounters io;
  std::array<double, kLaneTimes> seconds{};
};

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void report_times(const Totals& begin, const Totals& end, StepReport& report) {
  const auto lane = [&](LaneTime what) {
    const auto i = static_cast<std::size_t>(what);
    return end.seconds[i] - begin.seconds[i];
  };
  report.seconds = std::chrono::duration<double>(end.now - begin.now).count();
  report.swap_bytes_read = end.io.bytes_read - begin.io.bytes_read;
  report.swap_bytes_written = end.io.bytes_written - begin.io.bytes_written;
  report.seconds_reading = end.io.seconds_reading - begin.io.seconds_reading;
  report.seconds_writing = end.io.seconds_writing - begin.io.seconds_writing;
  report.seconds_compute = lane(LaneTime::kCompute);
  report.seconds_read_wait = lane(LaneTime::kReadWait);
  report.seconds_write_wait = lane(LaneTime::kWriteWait);
  report.seconds_update = lane(LaneTime::kUpdate);
  report.seconds_collective = lane(LaneTime::kCollective);
}

/// Ends the compute lane's work before an exception leaves the call that owns its operands.
class GivingUp {
 public:
  explicit GivingUp(Trainer::State& state) : state_(state) {}
  GivingUp(const GivingUp&) = delete;
  GivingUp& operator=(const GivingUp&) = delete;
  ~GivingUp() {
    if (std::uncaught_exceptions() > before_) state_.give_up();
  }

 private:
  Trainer::State& state_;
  int before_ = std::uncaught_exceptions();
};

/// Gives the step's decision its content: what the update does, or that it is left out. A fused
/// update is decided before its norm is known. `norm` is unscaled, the gradients at rest are not.
void decide(const Trainer::State& state, StepDecision& decision, double norm, bool finite) {
  const bool exact = state.options.clip == Clip::kExact;
  const double compared = state.options.clip == Clip::kPrevious ? state.last_norm : norm;
  const bool clips = state.options.max_grad_norm > 0 &&
                     (exact || (state.options.clip == Clip::kPrevious && state.last_norm > 0));
  const UpdateDecision update =
      decide_update(compared, finite, clips ? state.options.max_grad_norm : 0.0);
  decision.skip = update.skip;
  decision.step = {.step = state.updates_done + 1,
                   .learning_rate = state.options.schedule.at(state.updates_done),
                   .gradient_scale = static_cast<float>(update.scale / state.loss_scale())};
  decision.known.complete();
}

/// Submits the backward visit's share of what is read beside the step: between the collectives of
/// the phase's first half, so that the second half is there to hide the rest.
void read_beside(Trainer::State& state, int index) {
  if (!state.reader.busy()) return;
  const int turn = state.plan.turn();
  if (index == turn) state.streamer.settle();
  state.reader.submit_share(std::max(1, (turn + state.plan.size()) / 2 - index));
}

/// Returns when the sections may change. @return the seconds that took
double wait_for_reader(const Trainer::State& state) {
  const auto begin = Clock::now();
  state.reader.wait_read();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Visits of the backward phase: the last block's forward, loss and gradient, then all others.
double run_backward(Trainer::State& state, double labels,
                    const std::shared_ptr<StepDecision>& fused) {
  double loss_sum = 0;
  const int size = state.plan.size();
  for (int index = state.plan.turn(); index < size; ++index) {
    // Until the pending update of the last block was taken, the next step's must not be set.
    const bool into_next_step = index > state.plan.turn() && !fused;
    const int limit = into_next_step ? size + state.plan.turn() + 1 : size;
    Visit& visit = state.streamer.acquire(index, limit);
    if (!fused) read_beside(state, index);
    if (index == state.plan.turn() && !fused) state.streamer.set_pending(state.open_decision);
    const int b = visit.planned().block;
    const TensorView dense = state.gradients.begin_dense(b);
    TrainerVisit turn(state, visit, dense, static_cast<float>(state.loss_scale() / labels), true);
    {
      const LaneClock::Span span(state.clock, LaneTime::kCompute, TraceLane::kCompute, "backward",
                                 b);
      state.model.block(b).backward(turn);
    }
    if (index == state.plan.turn()) loss_sum = turn.loss_sum();
    state.gradients.finish_dense();
    if (visit.planned().completes_gradient) {
      const Event at_rest = state.gradients.finish_block(b);
      if (fused) state.streamer.update_now(visit, fused, at_rest);
    }
    state.streamer.release(visit, *state.compute);
  }
  return loss_sum;
}

/// The global norm of the step's scaled gradients, and whether all were finite; then nobody waits
/// any longer.
GradientNorm settle_gradients(Trainer::State& state) {
  const GradientNorm own = state.gradients.collect();
  const double squares = state.shards.sum(own.finite ? own.sum_of_squares : 0.0);
  const bool finite = state.shards.max(own.finite ? 0.0 : 1.0) == 0.0;
  return {finite ? squares : std::numeric_limits<double>::infinity(), finite};
}

}  // namespace

Trainer::Trainer(const Context& context, const Model& model, const TrainerOptions& options,
                 const ParameterSource& source, Trace* trace) {
  check(options);
  state_ = std::make_unique<State>(context, model, options, trace);
  fill(source);
}

Trainer::~Trainer() = default;

StepReport Trainer::step(const Batch& input) {
  State& state = *state_;
  expects(input.micro_batches.size() == static_cast<std::size_t>(state.options.shape.micro_batches),
          "a step needs as many micro-batches as the trainer was made for");
  StepReport report;
  report.step = ++state.steps;
  report.learning_rate = state.options.schedule.at(state.updates_done);
  const Totals begin(state);
  Communicator& world = state.context.communicator;
  const double labels = world.sum(static_cast<double>(input.counted_labels()));
  report.tokens = static_cast<std::int64_t>(world.sum(static_cast<double>(input.tokens())));
  if (labels == 0) {
    report.skipped = true;
    report.skipped_steps = ++state.skipped_steps;
    report_times(begin, Totals(state), report);
    if (state.callback) state.callback(report);
    return report;
  }

  state.load_batch(input);
  state.draws = true;
  const GivingUp on_failure(state);
  state.boundaries.begin(true);
  const bool lazy = state.options.placement.update == UpdateTiming::kLazy;
  const auto decision = std::make_shared<StepDecision>();
  if (lazy) {
    state.open_decision = decision;
  } else {
    decide(state, *decision, 0.0, true);
    if (state.reader.busy()) state.streamer.settle();
    state.reader.submit_share(1);
  }
  const double cpu_begin = cpu_seconds();
  state.run_forward(state.plan.size());
  const double cpu_turn = cpu_seconds();
  if (!lazy) report.seconds_read_beside = wait_for_reader(state);
  const double loss_sum = run_backward(state, labels, lazy ? nullptr : decision);
  report.loss = world.sum(loss_sum) / labels;
  if (lazy) report.seconds_read_beside = wait_for_reader(state);

  const GradientNorm norm = settle_gradients(state);
  report.cpu_seconds_forward = cpu_turn - cpu_begin;
  report.cpu_seconds_backward = cpu_seconds() - cpu_turn;
  report.gradient_norm = std::sqrt(norm.sum_of_squares) / state.loss_scale();
  report.skipped = !norm.finite;
  if (!lazy && report.skipped) {
    throw Error(
        "a gradient was not finite after its block had been updated; --update lazy skips such "
        "steps "
        "instead");
  }
  if (lazy) {
    state.open_decision = nullptr;
    decide(state, *decision, report.gradient_norm, norm.finite);
    state.has_pending = true;
  }
  if (!report.skipped) {
    ++state.updates_done;
    state.last_norm = report.gradient_norm;
  } else {
    ++state.skipped_steps;
  }
  report.skipped_steps = state.skipped_steps;
  if (state.loss_scaler) {
    report.loss_scale = state.loss_scale();
    state.loss_scaler->finish_step(report.skipped);
  }
  report_times(begin, Totals(state), report);
  if (state.callback) state.callback(report);
  return report;
}

EvaluationReport Trainer::evaluate(const Batch& input) {
  State& state = *state_;
  Communicator& world = state.context.communicator;
  EvaluationReport report;
  const Totals begin(state);
  report.labels = world.sum(static_cast<double>(input.counted_labels()));
  state.load_batch(input);
  state.draws = false;
  const GivingUp on_failure(state);
  state.boundaries.begin(false);
  const int limit = state.plan.turn() + 1;
  state.run_forward(limit);
  Visit& visit = state.streamer.acquire(state.plan.turn(), limit);
  TrainerVisit turn(state, visit, {}, 0.0f, false);
  state.model.block(visit.planned().block).backward(turn);
  report.loss_sum = world.sum(turn.loss_sum());
  state.streamer.release(visit, *state.compute);
  state.has_pending = false;
  const Totals end(state);
  report.swap_bytes_read = end.io.bytes_read - begin.io.bytes_read;
  report.swap_bytes_written = end.io.bytes_written - begin.io.bytes_written;
  return report;
}

void Trainer::flush() {
  State& state = *state_;
  if (std::exchange(state.has_pending, false)) {
    for (int index = 0; index <= state.plan.turn(); ++index) {
      Visit& visit = state.streamer.acquire(index, state.plan.turn() + 1);
      state.streamer.release(visit, *state.compute);
    }
  }
  state.streamer.settle();
}

const Model& Trainer::model() const noexcept { return state_->model; }
const MemoryPlan& Trainer::memory_plan() const noexcept { return state_->memory; }
std::int64_t Trainer::updates_done() const noexcept { return state_->updates_done; }
void Trainer::on_step(std::function<void(const StepReport&)> callback) {
  state_->callback = std::move(callback);
}

SwapTraffic Trainer::predicted_traffic() const noexcept {
  return predict_traffic(state_->plan_input(), state_->memory);
}

double Trainer::operations_per_step() const noexcept {
  double operations = 0;
  for (const BlockCost& cost : state_->costs) {
    operations += cost.forward_operations + cost.backward_operations;
  }
  return operations;
}

double Trainer::useful_operations_per_step() const noexcept {
  double operations = 0;
  for (const BlockCost& cost : state_->costs) operations += cost.useful_operations;
  return operations;
}

std::int64_t Trainer::steps_done() const noexcept { return state_->steps; }

}  // namespace strata
