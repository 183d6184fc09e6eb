#include <stdexcept>

#include "core/error.h"
#include "core/model/config.h"
#include "tests/fuzz/targets.h"

namespace strata::test {
namespace {

/// What was accepted must pass its own check and survive being written.
void expect_round_trip(const ModelConfig& config) {
  ModelConfig again;
  try {
    check(config, "accepted");
    again = parse_config(to_json(config), "written");
  } catch (const Error& error) {
    throw std::logic_error(error.what());
  }
  if (again != config) throw std::logic_error("an accepted config changes when it is written");
  if (config.positions == PositionKind::kRotary) inverse_frequencies(config);
}

}  // namespace

void fuzz_config(std::string_view input) {
  ModelConfig config;
  try {
    config = parse_config(input, "input");
  } catch (const FormatError&) {
    return;
  }
  expect_round_trip(config);
}

}  // namespace strata::test
