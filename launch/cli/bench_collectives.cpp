#include <fmt/format.h>

#include "core/units.h"
#include "launch/cli/bench_targets.h"
#include "launch/cli/print_json.h"
#include "launch/core_binding.h"
#include "parallel/collective_benchmark.h"

namespace strata::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kGiga = 1e9;

Json rates_json(const std::vector<CollectiveRates>& rates, int ranks) {
  Json rows = Json::array();
  for (const CollectiveRates& row : rates) {
    rows.push_back({{"block_bytes", row.block_bytes},
                    {"all_gather_gb_per_second", row.all_gather},
                    {"reduce_scatter_gb_per_second", row.reduce_scatter},
                    {"ceiling_memcpy_gb_per_second", row.memcpy},
                    {"all_gather_fraction", row.all_gather / row.memcpy},
                    {"reduce_scatter_fraction", row.reduce_scatter / row.memcpy}});
  }
  return {{"ranks", ranks}, {"sizes", rows}};
}

void print_table(const std::vector<CollectiveRates>& rates, int ranks) {
  fmt::print("{} ranks; GB of a whole block per second, and the fraction of memcpy by all ranks\n",
             ranks);
  fmt::print("{:>10}{:>12}{:>7}{:>16}{:>7}{:>10}\n", "block", "all-gather", "", "reduce-scatter",
             "", "memcpy");
  for (const CollectiveRates& row : rates) {
    fmt::print("{:>10}{:>12.2f}{:>7.2f}{:>16.2f}{:>7.2f}{:>10.2f}\n", format_bytes(row.block_bytes),
               row.all_gather, row.all_gather / row.memcpy, row.reduce_scatter,
               row.reduce_scatter / row.memcpy, row.memcpy);
  }
}

}  // namespace

int bench_collectives(const BenchOptions& options, Runtime& runtime) {
  constexpr std::size_t kSizes[] = {1 << 20, 4 << 20, 16 << 20, 64 << 20};
  constexpr double kFiguresOfARow = 3;
  Communicator& communicator = runtime.communicator();
  const std::vector<CollectiveRates> rates =
      measure_collectives(communicator, kSizes, options.seconds / kFiguresOfARow);
  if (communicator.rank() != 0) return 0;
  const int ranks = communicator.size();
  // Blocks of real models are large; of several nodes the slowest link says nothing about a node.
  if (local_rank().size == ranks) {
    // Every rank receives all of a block but its own part, at the same time.
    const double received = kGiga * (ranks - 1);
    keep({.gather = rates.back().all_gather * received,
          .reduce = rates.back().reduce_scatter * received},
         options, runtime);
  }
  if (options.json) {
    print_json(rates_json(rates, ranks));
  } else {
    print_table(rates, ranks);
  }
  return 0;
}

}  // namespace strata::cli
