#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/generation_bench/prices.h"
#include "launch/generation_bench/roofline.h"

namespace strata {

/// Where weights rest while a model generates.
struct GenerationTier {
  std::string name = {};       ///< "dram", or what the user calls a drive
  std::string directory = {};  ///< empty: weights stay in memory
  std::string device = {};     ///< block device, where there is one
  std::string link = {};       ///< "PCIe 4.0 x4"; empty where the system does not show it
  double read = 0;             ///< bytes per second that were measured; 0: nobody did
  double read_limit = 0;       ///< bytes per second of an emulated drive; 0: as fast as it is

  /// The name, with the limit of an emulated drive.
  std::string label() const;
  /// What reads are limited to; 0: not known, or nothing is read.
  double bandwidth() const noexcept;
};

/// What one cell of the tables runs.
struct GenerationCase {
  std::string model = {};
  std::string tier = {};
  std::string weights = {};  ///< format of weights, "bf16"
  std::string kv = {};       ///< format of keys and values
  GenerationShape shape = {};
};

struct GenerationMeasurement {
  double prefill_seconds = 0;  ///< until every text had its first token
  /// Mean of the passes that computed no prompt; 0 where there was none.
  double decode_seconds = 0;
  double seconds = 0;  ///< of everything, prompts included
  std::int64_t tokens = 0;
  std::int64_t prompt_tokens = 0;
  double bytes_read = 0;        ///< from drives
  double roofline_seconds = 0;  ///< 0: some rate that it needs was not measured
  GenerationBound bound = GenerationBound::kStream;  ///< of the roofline's decoding pass
  std::optional<double> joules = {};
};

/// What a cell would have taken.
struct GenerationMisfit {
  std::string what;  ///< "memory", "drive", ...
  std::uint64_t need = 0;
  std::uint64_t have = 0;
};

/// A cell: measured, or not for one of two reasons.
struct GenerationCell {
  GenerationCase what;
  double parameters = 0;  ///< of the model
  std::optional<GenerationMeasurement> measured = {};
  std::optional<GenerationMisfit> misfit = {};
  std::string refusal = {};  ///< why it was not run, where that is no matter of size

  // Of what was measured; nothing where a figure is not to be had.
  std::optional<double> tokens_per_second() const;
  std::optional<double> prompt_tokens_per_second() const;  ///< until every text had a token
  std::optional<double> bytes_per_token() const;           ///< read from drives
  std::optional<double> roofline_fraction() const;
  std::optional<double> joules_per_token() const;
  /// Per 1000 units of money.
  std::optional<double> tokens_per_second_per_1000(const Prices& prices) const;
};

/// A figure that rooflines are made from.
struct MeasuredRate {
  std::string what;
  double per_second = 0;  ///< 0: not measured
  bool is_bytes = true;   ///< else floating-point operations
  std::string remedy;     ///< the command that measures it
};

struct GenerationReport {
  std::string machine;  ///< processor and threads, for the heading
  std::vector<GenerationTier> tiers;
  std::vector<GenerationCell> cells;
  std::vector<MeasuredRate> rates;
  std::string energy_source;   ///< "RAPL", "power command"; empty when there is none
  std::string energy_missing;  ///< why there is no energy
  std::optional<Prices> prices;

  /// @throws Error if there is none of that name
  const GenerationTier& tier(const std::string& name) const;
};

/// Lines with a heading for each model, tier and format, as wide as a terminal of 120.
std::string generation_table(const GenerationReport& report);

/// One JSON object; what is not to be had is null, and a misfit says need and have. Rates are per
/// second, times seconds, sizes bytes.
std::string generation_json(const GenerationReport& report);

/// Throughput over batch for each tier, latency over model size and energy over batch, as one SVG
/// document. What has no value is left out.
std::string draw_generation(const GenerationReport& report);

}  // namespace strata
