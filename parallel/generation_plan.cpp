#include "parallel/generation_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "core/memory_pool.h"
#include "core/units.h"
#include "parallel/block_costs.h"
#include "parallel/parameter_streamer.h"
#include "swap/file_reader.h"
#include "swap/kv_swap.h"

namespace strata {
namespace {

constexpr std::int64_t kPassRows = 512;
/// More rows at once make products hardly faster and activations larger.
constexpr std::int64_t kRowsAtOnce = 512;
constexpr std::int64_t kLogitsAtOnce = 32;

std::size_t aligned(std::size_t bytes) { return round_up(bytes, MemoryPool::kAlignment); }

class Planner {
 public:
  explicit Planner(const GenerationPlanInput& input)
      : in_(input), visits_(Plan::forward_only(input.model)) {
    for (int part = 0; part < in_.partition.part_count(); ++part) {
      plan_.homes.push_back(file_bytes(part) ? WeightHome::kFile : WeightHome::kSwap);
    }
    plan_.weights_in_place = in_.partition.ranks() == 1;
    size_buffers();
    size_kv_swap();
    size_cache();
  }

  GenerationPlan run() {
    if (in_.options.residency && everything_fits()) {
      for (int part = 0; part < parts(); ++part) keep(part);
    } else {
      stream();
    }
    add_up();
    return plan_;
  }

 private:
  int parts() const { return in_.partition.part_count(); }
  std::size_t shard_bytes(int part) const {
    return static_cast<std::size_t>(in_.partition.part(part).shard_numel()) *
           size_bytes(in_.options.compute);
  }
  std::size_t whole_bytes(int part) const {
    return shard_bytes(part) * static_cast<std::size_t>(in_.partition.ranks());
  }
  const std::optional<std::uint64_t>& file_bytes(int part) const {
    return in_.in_files[static_cast<std::size_t>(part)];
  }
  /// Of the first block, if it has a table.
  int table_part() const { return part_of(in_.model, in_.model.block(0).looked_up()); }
  bool copies_whole(int part) const { return plan_.copies_table && part == table_part(); }
  WeightHome& home(int part) { return plan_.homes[static_cast<std::size_t>(part)]; }
  bool stays(int part) const {
    return plan_.homes[static_cast<std::size_t>(part)] == WeightHome::kMemory;
  }
  void keep(int part) {
    home(part) = WeightHome::kMemory;
    plan_.resident += shard_bytes(part);
  }

  void size_buffers() {
    const GeneratorOptions& options = in_.options;
    plan_.rows = options.rows > 0 ? options.rows : std::max(kPassRows, 2 * options.sequences);
    plan_.rows_at_once = std::min(plan_.rows, kRowsAtOnce);
    plan_.logits_at_once = std::min(plan_.rows, kLogitsAtOnce);
    const StepShape shape{
        .micro_batches = 1, .sequences = 1, .sequence_length = plan_.rows_at_once};
    std::size_t workspace = 0;
    for (int block = 0; block + 1 < in_.model.block_count(); ++block) {
      const BlockCost cost = measure_block(in_.model, block, shape, options.compute);
      workspace = std::max(workspace, cost.forward_workspace);
    }
    const BlockCost logits = measure_logits(in_.model, plan_.logits_at_once, options.compute);
    // Beside the logits: the rows they are of.
    workspace = std::max(workspace, logits.forward_workspace + row_bytes(plan_.logits_at_once));
    plan_.workspace = aligned(workspace);
    plan_.file_pool = FileReader::kPoolBytes;
    plan_.activations = aligned(row_bytes(plan_.rows));
    plan_.batch = aligned(static_cast<std::size_t>(plan_.rows) * 3 * size_bytes(Dtype::kI32));
    plan_.operations_per_logits =
        logits.forward_operations / static_cast<double>(plan_.logits_at_once);
    const StepShape one{.micro_batches = 1, .sequences = 1, .sequence_length = 1};
    for (int block = 0; block + 1 < in_.model.block_count(); ++block) {
      plan_.operations_per_row +=
          measure_block(in_.model, block, one, options.compute).forward_operations;
    }
  }
  std::size_t row_bytes(std::int64_t rows) const {
    return aligned(static_cast<std::size_t>(rows * in_.model.hidden_size()) *
                   size_bytes(in_.options.compute));
  }

  /// Without streaming's own buffers.
  std::uint64_t fixed() const {
    return plan_.workspace + plan_.activations + plan_.batch + plan_.file_pool + plan_.embedding +
           plan_.kv_staging;
  }
  std::uint64_t budget() const {
    return in_.options.dram_bytes.value_or(std::numeric_limits<std::uint64_t>::max());
  }
  std::uint64_t kv_of_one() const {
    return static_cast<std::uint64_t>(pages_for(in_.options.sequence_tokens)) * in_.kv.page_bytes();
  }
  std::uint64_t kv_wanted() const {
    return kv_of_one() * static_cast<std::uint64_t>(in_.options.sequences);
  }

  void size_kv_swap() {
    const std::uint64_t wanted = in_.options.kv_swap_bytes;
    if (wanted == 0) return;
    if (in_.options.swap.empty()) {
      throw UsageError("--kv_swap: says how much, but not where; name directories with --swap");
    }
    plan_.kv_swap = KvSwap::space_bytes(in_.kv, wanted);
    plan_.kv_staging = KvSwap::staging_bytes(in_.kv);
    if (plan_.kv_swap > 0) return;
    throw UsageError(fmt::format("--kv_swap {} holds no page of {} tokens, which takes {}",
                                 format_bytes(wanted), kPageTokens,
                                 format_bytes(in_.kv.page_bytes())));
  }

  void size_cache() {
    if (!in_.options.kv_bytes) return;
    if (*in_.options.kv_bytes < kv_of_one()) {
      throw UsageError(
          fmt::format("--kv_memory {} does not hold one sequence of {} tokens, which takes {}; "
                      "give it that, or "
                      "generate fewer tokens",
                      format_bytes(*in_.options.kv_bytes), in_.options.sequence_tokens,
                      format_bytes(kv_of_one())));
    }
    plan_.kv = *in_.options.kv_bytes / in_.kv.page_bytes() * in_.kv.page_bytes();
  }
  void choose_cache(std::uint64_t most) {
    if (in_.options.kv_bytes) return;
    const std::uint64_t bytes = std::clamp(std::min(kv_wanted(), most), kv_of_one(), kv_wanted());
    plan_.kv = bytes / in_.kv.page_bytes() * in_.kv.page_bytes();
  }
  std::uint64_t least_cache() const { return in_.options.kv_bytes ? plan_.kv : kv_of_one(); }

  bool everything_fits() {
    std::uint64_t weights = 0;
    for (int part = 0; part < parts(); ++part) weights += shard_bytes(part);
    // What is computed where it rests takes no memory of a visit: how far the first pass reads
    // ahead.
    int depth = plan_.weights_in_place ? most_depth() : std::min(most_depth(), 1);
    std::size_t gathered = plan_.weights_in_place ? 0 : window_bytes(depth);
    // Blocks that are gathered in every pass move as many bytes as weights that stream.
    const std::size_t whole =
        ParameterStreamer::all_blocks_bytes(in_.partition, in_.options.compute);
    const std::uint64_t cache = in_.options.kv_bytes ? plan_.kv : kv_wanted();
    const bool may_keep = in_.options.keep_gathered && !plan_.weights_in_place;
    if (may_keep && fixed() + weights + whole + cache <= budget()) {
      plan_.keeps_gathered = true;
      depth = most_depth();
      gathered = whole;
    }
    const std::uint64_t others = fixed() + weights + gathered;
    if (others + least_cache() > budget()) return false;
    choose_cache(budget() - others);
    plan_.gathered = gathered;
    plan_.prefetch_depth = depth;
    return true;
  }

  int most_depth() const {
    return std::min(std::max(in_.options.prefetch_depth, 0), visits_.size() - 1);
  }
  /// Complete blocks of `depth` + 1 visits in a row.
  std::size_t window_bytes(int depth) const {
    std::size_t largest = 0;
    for (int first = 0; first < visits_.size(); ++first) {
      std::size_t bytes = 0;
      for (int i = 0; i <= depth; ++i) {
        for (const int part : visits_.visit((first + i) % visits_.size()).parts) {
          bytes += aligned(whole_bytes(part));
        }
      }
      largest = std::max(largest, bytes);
    }
    return largest;
  }

  /// Of the first block's table, rows take less memory than the whole, unless it is a small one.
  void consider_look_ups() {
    if (!in_.embedding_bytes) return;
    const bool in_files = file_bytes(table_part()).has_value();
    if (!in_files && in_.options.swap.empty()) return;
    std::size_t gathered = 0;
    for (const int part : visits_.visit(0).parts) gathered += aligned(whole_bytes(part));
    const std::size_t bytes = in_.embedding_bytes(plan_.rows);
    if (bytes >= gathered) return;
    plan_.looks_up = true;
    plan_.copies_table = !in_files;
    plan_.embedding = bytes;
    visits_ = Plan::forward_only(in_.model, true);
  }

  void stream() {
    consider_look_ups();
    const std::uint64_t others = fixed();
    int depth = most_depth();
    while (depth > 0 && others + window_bytes(depth) + least_cache() > budget()) --depth;
    plan_.prefetch_depth = depth;
    plan_.gathered = window_bytes(depth);
    const std::uint64_t least = others + plan_.gathered + least_cache();
    if (least > budget()) {
      throw UsageError(
          fmt::format("--dram {} is too little: {} work, of which {} are complete blocks and {} "
                      "keys and values "
                      "of one sequence of {} tokens",
                      format_bytes(budget()), format_bytes(least), format_bytes(plan_.gathered),
                      format_bytes(least_cache()), in_.options.sequence_tokens));
    }
    // Keys and values come first: without them passes serve fewer sequences, and reading is paid
    // per pass.
    choose_cache(budget() - others - plan_.gathered);
    if (!in_.options.residency) return;
    std::uint64_t left = budget() - others - plan_.gathered - plan_.kv;
    for (const int part : in_order()) {
      if (visits_.gathers(part) == 0 || shard_bytes(part) > left) continue;
      left -= shard_bytes(part);
      keep(part);
    }
  }

  /// Parts in the order in which they deserve to stay.
  std::vector<int> in_order() const {
    std::vector<int> order(static_cast<std::size_t>(parts()));
    std::iota(order.begin(), order.end(), 0);
    // Of parts read as often: every second, then every fourth, and so on.
    const auto spread = [](int part) {
      std::uint32_t reversed = 0;
      for (int bit = 0; bit < 32; ++bit) {
        reversed |= (static_cast<std::uint32_t>(part) >> bit & 1u) << (31 - bit);
      }
      return reversed;
    };
    const auto rank = [&](int part) {
      return std::tuple(-visits_.gathers(part), copies_whole(part), spread(part));
    };
    std::ranges::stable_sort(order, [&](int a, int b) { return rank(a) < rank(b); });
    return order;
  }

  void add_up() {
    for (int part = 0; part < parts(); ++part) {
      const auto visits = static_cast<std::uint64_t>(visits_.gathers(part));
      if (copies_whole(part)) plan_.swap += aligned(whole_bytes(part));
      if (visits == 0) continue;
      plan_.weights += whole_bytes(part) * visits;
      if (stays(part)) continue;
      const bool copied = home(part) == WeightHome::kSwap;
      plan_.streamed += (copied ? shard_bytes(part) : file_bytes(part).value()) * visits;
      if (copied && !copies_whole(part)) plan_.swap += aligned(shard_bytes(part));
    }
    if (plan_.swap == 0 || !in_.options.swap.empty()) return;
    throw UsageError(fmt::format(
        "--swap names no directory, and {} of weights neither stay in memory nor can be read in "
        "place from the model's files; name directories for a copy of them",
        format_bytes(plan_.swap)));
  }

  GenerationPlanInput in_;
  Plan visits_;
  GenerationPlan plan_;
};

}  // namespace

KvShape kv_shape(const Model& model, Dtype dtype) {
  KvShape shape{.dtype = dtype};
  for (int block = 0; block < model.block_count(); ++block) {
    const std::optional<KvLayer> layer = model.block(block).kv_layer();
    if (!layer) continue;
    if (shape.layers++ == 0) {
      shape.kv_heads = layer->heads;
      shape.head_size = layer->head_size;
    } else if (shape.kv_heads != layer->heads || shape.head_size != layer->head_size) {
      throw UsageError(fmt::format(
          "{} keeps {} x {} keys a token, blocks before it {} x {}: such models cannot generate",
          model.block(block).name(), layer->heads, layer->head_size, shape.kv_heads,
          shape.head_size));
    }
  }
  if (shape.layers == 0)
    throw UsageError("no block of the model attends: nothing to generate with");
  return shape;
}

GenerationPlan make_generation_plan(const GenerationPlanInput& input) {
  return Planner(input).run();
}

}  // namespace strata
