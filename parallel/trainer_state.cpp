#include "parallel/trainer_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <numeric>

#include "core/random.h"
#include "core/units.h"
#include "parallel/agreement.h"
#include "parallel/replicated_communicator.h"
#include "parallel/trainer_visit.h"

namespace strata {
namespace {

std::unique_ptr<UpdateRule> make_plain_rule(const TrainerOptions& options) {
  switch (options.optimizer) {
    case OptimizerKind::kAdamW:
      return make_adamw(options.adamw);
    case OptimizerKind::kAdam:
      return make_adam(options.adamw);
    case OptimizerKind::kLion:
      return make_lion(options.lion);
    case OptimizerKind::kSgd:
      break;
  }
  return make_sgd(options.sgd);
}

std::size_t aligned(std::size_t bytes) { return round_up(bytes, MemoryPool::kAlignment); }

/// Piece `index` of consecutive aligned pieces of these sizes.
std::span<std::byte> piece(const Buffer& buffer, std::initializer_list<std::size_t> sizes,
                           std::size_t index) {
  std::size_t offset = 0;
  for (std::size_t i = 0; i < index; ++i) offset += aligned(sizes.begin()[i]);
  return {buffer.data() + offset, sizes.begin()[index]};
}

std::size_t total(std::initializer_list<std::size_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::size_t{0},
                         [](std::size_t sum, std::size_t size) { return sum + aligned(size); });
}

}  // namespace

void check(const TrainerOptions& options) {
  const PlacementRequest& placement = options.placement;
  if (placement.stage < 0 || placement.stage > 3) {
    throw UsageError(
        fmt::format("--stage {} is not a ZeRO stage; use 0, 1, 2 or 3", placement.stage));
  }
  if (placement.update == UpdateTiming::kFused && placement.compute == Dtype::kF16) {
    throw UsageError(
        "--compute fp16 skips steps whose gradients overflow, which --update fused finds out too "
        "late; use --update lazy, or --compute bf16");
  }
  const bool clips = options.clip == Clip::kExact && options.max_grad_norm > 0;
  if (placement.update == UpdateTiming::kFused && clips) {
    throw UsageError(
        "--update fused updates blocks before the global norm is known and cannot clip by it; use "
        "--update lazy, --clip previous or --clip none");
  }
  if (options.shape.micro_batches < 1 || options.shape.sequences < 1 ||
      options.shape.sequence_length < 1) {
    throw UsageError("a step needs at least one micro-batch, sequence and token");
  }
  validate(options.schedule);
}

std::unique_ptr<UpdateRule> make_update_rule(const TrainerOptions& options) {
  auto rule = make_plain_rule(options);
  return options.decay_everywhere ? decay_everywhere(std::move(rule)) : std::move(rule);
}

MemoryPlanInput Trainer::State::plan_input() const {
  return {.model = model,
          .partition = partition,
          .plan = plan,
          .costs = costs,
          .shape = options.shape,
          .state = rule->state_sections(),
          .placement = options.placement,
          .host_accessible = context.device.is_host_accessible()};
}

std::span<std::byte> Trainer::State::device_piece(DevicePiece which) const {
  return piece(device_memory,
               {memory.gathered, memory.gradient_buffers, memory.boundary_gradients, memory.batch},
               static_cast<std::size_t>(which));
}

StreamerOptions Trainer::State::streamer_options() const {
  return {.prefetch_depth = memory.prefetch_depth,
          .keep_gathered = memory.keep_gathered,
          .weights_in_place = memory.weights_in_place,
          .compute = options.placement.compute};
}

Trainer::State::State(const Context& given, const Model& streamed, const TrainerOptions& wanted,
                      Trace* trace)
    : context(given),
      model(streamed),
      options(wanted),
      clock(trace != nullptr ? *trace : no_trace),
      replicated(wanted.placement.stage == 0 ? make_replicated_communicator(given.communicator)
                                             : nullptr),
      shards(replicated ? *replicated : given.communicator),
      rule(make_update_rule(wanted)),
      partition(streamed, shards.size()),
      plan(streamed, wanted.placement.update),
      costs(measure_blocks(streamed, wanted.shape, wanted.placement.compute)),
      memory(make_memory_plan(plan_input())),
      device_memory(given.device.allocate(total(
          {memory.gathered, memory.gradient_buffers, memory.boundary_gradients, memory.batch}))),
      host_memory(allocate_host(total({memory.chunk_pool, memory.gradient_staging}))),
      weight_staging(allocate_host(
          ParameterStreamer::staging_bytes(streamer_options(), given.device, partition, plan))),
      boundary_memory(memory.boundaries_on_swap ? allocate_host(memory.boundaries)
                                                : given.device.allocate(memory.boundaries)),
      boundary_landing(memory.boundaries_on_swap && !given.device.is_host_accessible()
                           ? given.device.allocate(memory.boundary_gradients)
                           : Buffer()),
      workspace(given.device.allocate(memory.workspace)),
      engine(memory.swap() > 0 ? wanted.make_engine(wanted.io) : nullptr),
      boundary_swap(memory.boundaries_on_swap ? make_swap(memory.swap_boundaries) : nullptr),
      store(memory.layout, memory.residency,
            [this](std::uint64_t bytes) { return make_swap(bytes); }),
      compute(given.device.make_stream()),
      updater(partition, shards.rank(), wanted.placement.compute, *rule, store,
              piece(host_memory, {memory.chunk_pool, memory.gradient_staging}, 0),
              wanted.update_threads, clock),
      streamer(streamer_options(), given.device, shards, partition, plan, updater,
               device_piece(DevicePiece::kGathered),
               {weight_staging.data(), weight_staging.bytes()}, clock),
      gradients(given.device, *compute, shards, streamed, partition, store,
                wanted.placement.compute, device_piece(DevicePiece::kGradients),
                piece(host_memory, {memory.chunk_pool, memory.gradient_staging}, 1), clock),
      boundaries(make_boundaries()),
      reader(streamed, partition, store, wanted.placement.compute, shards,
             given.communicator.rank() == 0) {
  const std::size_t bytes = boundary_shape().tensor_bytes();
  for (int i = 0; i < wanted.shape.micro_batches; ++i) {
    std::byte* home =
        device_piece(DevicePiece::kBoundaryGradients).data() + bytes * static_cast<std::size_t>(i);
    boundary_gradients.emplace_back(home, wanted.placement.compute,
                                    Shape{wanted.shape.tokens(), streamed.hidden_size()});
  }
  register_transfers();
  if (wanted.placement.stage == 1) {
    context.log.info(
        "ZeRO stage 1 runs as stage 2: gradients are partitioned too, the bits are the same");
  }
  losses.reserve(boundary_gradients.size());
  if (wanted.placement.compute == Dtype::kF16) loss_scaler.emplace(wanted.loss_scale);
  agree_on_plan();
}

Trainer::State::~State() {
  // An exception may leave operations under way that use our memory: end them before it goes.
  if (open_decision) {
    open_decision->known.fail(std::make_exception_ptr(Error("the step was given up")));
  }
  if (std::uncaught_exceptions() > 0) give_up();
  try {
    shards.stream().synchronize();
  } catch (const std::exception&) {  // its cause has been thrown where it was waited for
  }
}

void Trainer::State::give_up() noexcept {
  shards.abandon();
  try {
    compute->synchronize();
  } catch (const std::exception&) {  // likewise
  }
}

std::unique_ptr<SwapSpace> Trainer::State::make_swap(std::uint64_t bytes) {
  auto space = std::make_unique<SwapSpace>(*engine, options.placement.swap, bytes);
  for (const std::string& warning : space->warnings()) context.log.warn(warning);
  return space;
}

BoundaryStore Trainer::State::make_boundaries() {
  const std::span<std::byte> home{boundary_memory.data(), boundary_memory.bytes()};
  if (!memory.boundaries_on_swap) return BoundaryStore(boundary_shape(), home);
  return BoundaryStore(boundary_shape(), home, memory.boundary_slots, *boundary_swap, clock);
}

void Trainer::State::register_transfers() {
  if (!engine) return;
  const auto pin = [&](const Buffer& buffer) {
    if (buffer.bytes() > 0) engine->register_memory({buffer.data(), buffer.bytes()});
  };
  pin(host_memory);
  if (context.device.is_host_accessible()) pin(device_memory);
  pin(weight_staging);
  if (memory.boundaries_on_swap) pin(boundary_memory);
  if (!engine->notice().empty()) context.log.warn(engine->notice());
}

void Trainer::State::agree_on_plan() {
  const std::array<std::uint64_t, 3> facts{plan.hash(),
                                           static_cast<std::uint64_t>(options.placement.compute),
                                           static_cast<std::uint64_t>(options.placement.stage)};
  expect_agreement(context.communicator, facts);
}

void Trainer::State::load_batch(const Batch& input) {
  const StepShape& shape = options.shape;
  if (input.micro_batches.size() > static_cast<std::size_t>(shape.micro_batches)) {
    throw UsageError(fmt::format("the batch has {} micro-batches; the trainer was made for {}",
                                 input.micro_batches.size(), shape.micro_batches));
  }
  for (const MicroBatch& micro_batch : input.micro_batches) check(micro_batch);
  batch.clear();
  std::byte* home = device_piece(DevicePiece::kBatch).data();
  const auto load = [&](const std::vector<std::int32_t>& values) {
    const ConstTensorView from(values.data(), Dtype::kI32, {shape.tokens()});
    const TensorView to(home, Dtype::kI32, from.shape());
    context.device.copy(from, to, *compute);
    home += to.bytes();
    return to;
  };
  std::int64_t first_sequence = input.first_sequence;
  for (const MicroBatch& micro_batch : input.micro_batches) {
    DeviceBatch loaded{.ids = load(micro_batch.ids),
                       .labels = load(micro_batch.labels),
                       .positions = load(micro_batch.positions),
                       .first_key = {},
                       .sequences = shape.sequences,
                       .tokens = shape.sequence_length,
                       .first_sequence = first_sequence};
    first_sequence += shape.sequences;
    if (!micro_batch.first_key.empty()) loaded.first_key = load(micro_batch.first_key);
    batch.push_back(loaded);
  }
}

void Trainer::State::check(const MicroBatch& micro_batch) const {
  const StepShape& shape = options.shape;
  const auto holds = [&](const std::vector<std::int32_t>& values) {
    return static_cast<std::int64_t>(values.size()) == shape.tokens();
  };
  expects(micro_batch.sequences == shape.sequences &&
              micro_batch.tokens_per_sequence == shape.sequence_length && holds(micro_batch.ids) &&
              holds(micro_batch.labels) && holds(micro_batch.positions) &&
              (micro_batch.first_key.empty() || holds(micro_batch.first_key)),
          "a micro-batch has another shape than the trainer was made for");
  const std::int64_t vocabulary = model.vocabulary_size();
  for (const std::int32_t id : micro_batch.ids) {
    if (id < 0 || id >= vocabulary) {
      throw UsageError(
          fmt::format("token id {} is outside the model's vocabulary of {}; does the "
                      "tokenizer belong to this model?",
                      id, vocabulary));
    }
  }
  const std::int64_t positions = model.position_count();
  for (const std::int32_t position : micro_batch.positions) {
    if (position < 0 || (positions > 0 && position >= positions)) {
      throw UsageError(
          fmt::format("position {} is outside the model's {} positions; use shorter sequences",
                      position, positions));
    }
  }
  for (const std::int32_t label : micro_batch.labels) {
    expects(label < vocabulary, "a label is outside the model's vocabulary");
  }
}

TensorView Trainer::State::boundary_input(int boundary, int micro_batch) {
  const TensorView home = boundaries.input(boundary, micro_batch);
  if (boundary_landing.bytes() == 0) return home;
  const std::size_t offset =
      boundary_shape().tensor_bytes() * static_cast<std::size_t>(micro_batch);
  const TensorView landing(boundary_landing.data() + offset, home.dtype(), home.shape());
  context.device.copy(home, landing, *compute);
  return landing;
}

std::optional<std::uint64_t> Trainer::State::randomness(int block) const {
  if (!draws) return std::nullopt;
  return random_key(options.seed,
                    {static_cast<std::uint64_t>(steps), static_cast<std::uint64_t>(block)});
}

void Trainer::State::run_forward(int limit) {
  for (int index = 0; index < plan.turn(); ++index) {
    Visit& visit = streamer.acquire(index, limit);
    const int b = visit.planned().block;
    {
      const LaneClock::Span span(clock, LaneTime::kCompute, TraceLane::kCompute, "forward", b);
      const VisitParameters parameters(visit, partition);
      for (int i = 0; i < micro_batches(); ++i) {
        Graph graph(context.device.ops(), *compute, workspace, parameters,
                    options.placement.compute, false, randomness(b));
        const Value input = b == 0 ? Value() : graph.constant(boundary_input(b - 1, i));
        const Value output =
            model.block(b).forward(graph, input, batch[static_cast<std::size_t>(i)]);
        if (b > 0) boundaries.drop(b - 1, i, *compute);
        context.device.copy(output.view(), boundaries.output(b, i), *compute);
        boundaries.finish_output(b, i, *compute);
      }
    }
    streamer.release(visit, *compute);
  }
}

}  // namespace strata
