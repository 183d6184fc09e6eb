#include "parallel/generator.h"

#include <algorithm>
#include <array>
#include <exception>
#include <unordered_map>
#include <utility>

#include "parallel/agreement.h"
#include "parallel/embedding_rows.h"
#include "parallel/frozen_shards.h"
#include "parallel/parameter_streamer.h"

namespace strata {
namespace {

/// Rows that a block computes together, as rows of their own.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  std::vector<SequenceRows> sequences = {};
};

std::vector<RowRange> cut(const PassRows& pass, std::int64_t at_once) {
  std::vector<RowRange> ranges;
  const auto rows = static_cast<std::int64_t>(pass.ids.size());
  for (std::int64_t begin = 0; begin < rows; begin += at_once) {
    RowRange range{.begin = begin, .rows = std::min(at_once, rows - begin)};
    for (const SequenceRows& sequence : pass.sequences) {
      const std::int64_t from = std::max(begin, sequence.row);
      const std::int64_t to = std::min(begin + range.rows, sequence.row + sequence.rows);
      if (from >= to) continue;
      range.sequences.push_back({.row = from - begin,
                                 .rows = to - from,
                                 .position = sequence.position + from - sequence.row,
                                 .pages = sequence.pages});
    }
    ranges.push_back(std::move(range));
  }
  return ranges;
}

/// By parameter: what it is kept as since Ops::arrange() has had it.
using Arranged = std::unordered_map<Parameter, Dtype>;

/// Weights of a visit.
class PassParameters final : public ParameterTable {
 public:
  PassParameters(const Visit& visit, const Arranged& arranged)
      : visit_(visit), arranged_(arranged) {}
  ConstTensorView weight(Parameter parameter) const override {
    const ConstTensorView weight = visit_.weight(parameter);
    const auto found = arranged_.find(parameter);
    if (found == arranged_.end()) return weight;
    return {weight.data(), found->second, weight.shape()};
  }
  TensorView gradient(Parameter) const override { return {}; }

 private:
  const Visit& visit_;
  const Arranged& arranged_;
};

/// Ranks gather together: either all keep whole blocks, or none does. Collective.
GenerationPlan agreed_plan(const Model& model, Communicator& communicator, GeneratorOptions options,
                           const ParameterLocator& locator) {
  const int rank = communicator.rank(), ranks = communicator.size();
  const GenerationPlan own = plan_generation(model, rank, ranks, options, locator);
  const double keep = communicator.sum(own.keeps_gathered ? 1.0 : 0.0);
  if (!own.keeps_gathered || keep == ranks) return own;
  options.keep_gathered = false;
  return plan_generation(model, rank, ranks, options, locator);
}

}  // namespace

GenerationPlan plan_generation(const Model& model, int rank, int ranks,
                               const GeneratorOptions& options, const ParameterLocator& locator) {
  const WeightStorage storage{options.compute, options.weights};
  const Partition partition(model, ranks, storage);
  std::function<std::size_t(std::int64_t)> embedding_bytes;
  if (model.block(0).looked_up() != nullptr) {
    embedding_bytes = [&](std::int64_t rows) {
      return EmbeddingRows::memory_bytes(model.block(0), storage, rows);
    };
  }
  return make_generation_plan(
      {.model = model,
       .partition = partition,
       .kv = kv_shape(model, options.kv_dtype()),
       .in_files = FrozenShards::in_files(partition, rank, options.compute, locator),
       .options = options,
       .embedding_bytes = embedding_bytes});
}

struct Generator::State {
  State(const Context& context, const Model& model, const GeneratorOptions& options,
        const ParameterSource& source, const ParameterLocator& locator, Trace* trace);
  ~State();

  Context context;
  const Model& model;
  GeneratorOptions options;
  Trace no_trace{false};
  LaneClock clock;
  Communicator& shards;
  Partition partition;
  KvShape kv;
  GenerationPlan memory;
  Plan plan;

  // Memory, before whatever transfers to and from it.
  Buffer gathered;
  Buffer file_pool;
  Buffer weight_staging;
  Buffer activation_memory;
  Buffer batch_memory;
  Buffer kv_memory;
  Workspace workspace;

  std::unique_ptr<IoEngine> engine;
  FrozenShards weights;
  std::unique_ptr<EmbeddingRows> embedding;  // null: the first block is gathered
  std::vector<std::int32_t> table_rows;      // what it found for the ids of the pass
  std::unique_ptr<Stream> compute;
  ParameterStreamer streamer;
  KvCache cache;
  std::unique_ptr<KvSwap> kv_swap;  // null: there is none
  std::vector<PagedKv> layers;
  Arranged arranged;

  void pass(const PassRows& rows, const LogitsSink& sink);
  void give_up() noexcept;

 private:
  StreamerOptions streamer_options() const;
  std::unique_ptr<SwapSpace> make_swap(std::uint64_t bytes);
  void agree_on_plan();
  void check(const PassRows& rows) const;
  void arrange(const Visit& visit);
  TensorView load(const std::vector<std::int32_t>& values, std::size_t place);
  TensorView activations(std::int64_t begin, std::int64_t rows) const;
  void run_block(int block, const PagedKv* pages, const ParameterTable& parameters,
                 const RowRange& range, const TensorView& ids, const TensorView& positions);
  void run_logits(const ParameterTable& parameters, const std::vector<std::int64_t>& picked,
                  const LogitsSink& sink);
};

Generator::State::State(const Context& given, const Model& streamed, const GeneratorOptions& wanted,
                        const ParameterSource& source, const ParameterLocator& locator,
                        Trace* trace)
    : context(given),
      model(streamed),
      options(wanted),
      clock(trace != nullptr ? *trace : no_trace),
      shards(given.communicator),
      partition(streamed, shards.size(), WeightStorage{wanted.compute, wanted.weights}),
      kv(kv_shape(streamed, wanted.kv_dtype())),
      memory(agreed_plan(streamed, shards, wanted, locator)),
      plan(Plan::forward_only(streamed, memory.looks_up)),
      gathered(given.device.allocate(memory.gathered)),
      file_pool(allocate_host(FileReader::kPoolBytes)),
      weight_staging(allocate_host(
          ParameterStreamer::staging_bytes(streamer_options(), given.device, partition, plan))),
      activation_memory(given.device.allocate(memory.activations)),
      batch_memory(given.device.allocate(memory.batch)),
      kv_memory(allocate_host(memory.kv)),
      workspace(given.device.allocate(memory.workspace)),
      engine(wanted.make_engine(wanted.io)),
      weights(partition, shards.rank(), wanted.compute, memory, {source, locator}, *engine,
              make_swap(memory.swap), {file_pool.data(), file_pool.bytes()}),
      compute(given.device.make_stream()),
      streamer(streamer_options(), given.device, shards, partition, plan, weights,
               {gathered.data(), gathered.bytes()}, {weight_staging.data(), weight_staging.bytes()},
               clock),
      cache(kv, {kv_memory.data(), kv_memory.bytes()}) {
  for (int layer = 0; layer < kv.layers; ++layer) layers.push_back(cache.layer(layer));
  if (memory.kv_swap > 0) {
    kv_swap = std::make_unique<KvSwap>(cache, kv, make_swap(memory.kv_swap));
  }
  if (memory.looks_up) {
    EmbeddingRows::Sources sources{locator};
    if (memory.copies_table) sources.copy.emplace(weights.table_copy());
    embedding = std::make_unique<EmbeddingRows>(model.block(0),
                                                WeightStorage{wanted.compute, wanted.weights},
                                                sources, memory.rows, context.device, *engine);
  }
  agree_on_plan();
}

Generator::State::~State() {
  // An exception may leave operations under way that use our memory: end them before it goes.
  if (std::uncaught_exceptions() > 0) give_up();
  try {
    shards.stream().synchronize();
  } catch (const std::exception&) {  // its cause has been thrown where it was waited for
  }
}

void Generator::State::give_up() noexcept {
  shards.abandon();
  try {
    compute->synchronize();
  } catch (const std::exception&) {  // likewise
  }
}

StreamerOptions Generator::State::streamer_options() const {
  return {.prefetch_depth = memory.prefetch_depth,
          .keep_gathered = memory.keeps_gathered,
          .weights_in_place = memory.weights_in_place && context.device.is_host_accessible(),
          .compute = options.compute};
}

std::unique_ptr<SwapSpace> Generator::State::make_swap(std::uint64_t bytes) {
  if (bytes == 0) return nullptr;
  auto space = std::make_unique<SwapSpace>(*engine, options.swap, bytes);
  for (const std::string& warning : space->warnings()) context.log.warn(warning);
  return space;
}

void Generator::State::agree_on_plan() {
  const std::array<std::uint64_t, 4> facts{plan.hash(), static_cast<std::uint64_t>(options.compute),
                                           static_cast<std::uint64_t>(options.weights),
                                           static_cast<std::uint64_t>(kv.dtype)};
  expect_agreement(context.communicator, facts);
}

void Generator::State::check(const PassRows& rows) const {
  expects(rows.ids.size() == rows.positions.size() &&
              static_cast<std::int64_t>(rows.ids.size()) <= memory.rows,
          "a pass has as many positions as ids, and not more rows than were planned");
  for (const std::int32_t id : rows.ids) {
    expects(id >= 0 && id < model.vocabulary_size(), "an id is outside the model's vocabulary");
  }
  const std::int64_t positions = model.position_count();
  for (const std::int32_t position : rows.positions) {
    expects(position >= 0 && (positions == 0 || position < positions),
            "a position is outside the model's");
  }
}

TensorView Generator::State::load(const std::vector<std::int32_t>& values, std::size_t place) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::byte* home =
      batch_memory.data() + place * static_cast<std::size_t>(memory.rows) * size_bytes(Dtype::kI32);
  const TensorView to(home, Dtype::kI32, {count});
  context.device.copy(ConstTensorView(values.data(), Dtype::kI32, {count}), to, *compute);
  return to;
}

TensorView Generator::State::activations(std::int64_t begin, std::int64_t rows) const {
  const std::int64_t width = model.hidden_size();
  const auto offset = static_cast<std::size_t>(begin * width) * size_bytes(options.compute);
  return {activation_memory.data() + offset, options.compute, {rows, width}};
}

void Generator::State::pass(const PassRows& rows, const LogitsSink& sink) {
  check(rows);
  const TensorView ids = load(rows.ids, 0), positions = load(rows.positions, 1);
  // What the first block sees of ids and weights, where its table is not gathered.
  if (embedding) table_rows = embedding->fetch(rows.ids, *compute);
  const TensorView looked_up = embedding ? load(table_rows, 2) : ids;
  const std::vector<RowRange> ranges = cut(rows, memory.rows_at_once);
  std::size_t layer = 0;
  for (int index = 0; index < plan.size(); ++index) {
    // Weights do not change, so what comes after this pass is read ahead, too.
    Visit& visit = streamer.acquire(index, 2 * plan.size());
    const bool looks_up = index == 0 && embedding;
    if (!looks_up) arrange(visit);
    const PassParameters gathered_weights(visit, arranged);
    const ParameterTable& parameters =
        looks_up ? static_cast<const ParameterTable&>(*embedding) : gathered_weights;
    const LaneClock::Span span(clock, LaneTime::kCompute, TraceLane::kCompute, "forward", index);
    if (index + 1 == plan.size()) {
      run_logits(parameters, rows.picked, sink);
    } else {
      const PagedKv* pages = model.block(index).kv_layer() ? &layers[layer++] : nullptr;
      for (const RowRange& range : ranges) {
        run_block(index, pages, parameters, range, looks_up ? looked_up : ids, positions);
      }
    }
    streamer.release(visit, *compute);
  }
  compute->synchronize();
}

/// Quantised weights that stay, at their first visit. Tables of the first block are left as they
/// are where it looks up rows in them.
void Generator::State::arrange(const Visit& visit) {
  if (!is_quantized(options.weights)) return;
  for (const auto& [parameter, weight] : visit.staying()) {
    if (!is_quantized(weight.dtype()) || arranged.contains(parameter)) continue;
    if (parameter->row_tiled && parameter->block == 0 && !embedding) continue;
    arranged[parameter] = context.device.ops().arrange(weight, options.compute, *compute);
  }
}

void Generator::State::run_block(int block, const PagedKv* pages, const ParameterTable& parameters,
                                 const RowRange& range, const TensorView& ids,
                                 const TensorView& positions) {
  Graph graph(context.device.ops(), *compute, workspace, parameters, options.compute, false);
  if (pages != nullptr) graph.attend_over(*pages, range.sequences);
  const TensorView own_ids = ids.flat(range.begin, range.rows);
  const DeviceBatch batch{.ids = own_ids,
                          .labels = own_ids,
                          .positions = positions.flat(range.begin, range.rows),
                          .first_key = {},
                          .sequences = 1,
                          .tokens = range.rows};
  const TensorView x = activations(range.begin, range.rows);
  const Value input = block == 0 ? Value() : graph.constant(x);
  const Value output = model.block(block).forward(graph, input, batch);
  context.device.copy(output.view(), x, *compute);
}

void Generator::State::run_logits(const ParameterTable& parameters,
                                  const std::vector<std::int64_t>& picked, const LogitsSink& sink) {
  const auto count = static_cast<std::int64_t>(picked.size());
  for (std::int64_t first = 0; first < count; first += memory.logits_at_once) {
    const std::int64_t rows = std::min(memory.logits_at_once, count - first);
    Graph graph(context.device.ops(), *compute, workspace, parameters, options.compute, false);
    const Value input = graph.allocate(options.compute, {rows, model.hidden_size()});
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t from = picked[static_cast<std::size_t>(first + row)];
      context.device.copy(activations(from, 1), input.view().rows(row, 1), *compute);
    }
    const Value logits = model.loss().logits(graph, input);
    compute->synchronize();
    sink(first, logits.view());
  }
}

Generator::Generator(const Context& context, const Model& model, const GeneratorOptions& options,
                     const ParameterSource& source, const ParameterLocator& locator, Trace* trace) {
  expects(model.trainable_count() == 0,
          "nothing of a model that generates is trained: freeze_all()");
  if (options.compute != Dtype::kBf16 && options.compute != Dtype::kF32) {
    throw UsageError("--compute: text is generated in bf16 or fp32");
  }
  state_ = std::make_unique<State>(context, model, options, source, locator, trace);
}
Generator::~Generator() = default;

KvCache& Generator::cache() noexcept { return state_->cache; }
KvSwap* Generator::kv_swap() noexcept { return state_->kv_swap.get(); }
const Model& Generator::model() const noexcept { return state_->model; }
const GenerationPlan& Generator::plan() const noexcept { return state_->memory; }
double Generator::seconds_waited() const { return state_->clock.seconds(LaneTime::kReadWait); }
std::uint64_t Generator::bytes_read() const { return state_->engine->counters().bytes_read; }

void Generator::pass(const PassRows& rows, const LogitsSink& sink) {
  try {
    state_->pass(rows, sink);
  } catch (...) {
    state_->give_up();
    throw;
  }
}

}  // namespace strata
