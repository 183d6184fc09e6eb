#pragma once

#include <string>
#include <vector>

#include "core/metrics.h"
#include "launch/plot/svg.h"

namespace strata::plot {

/// The seconds of every lane upon each other, step by step, and the rest of the step up to its own
/// seconds, which are a line: lanes work at the same time, so the pile may be higher. Steps that
/// share pixels are drawn as their mean. Nothing for a run without times.
void draw_lanes(Svg& svg, const Box& box, const std::string& title,
                const std::vector<StepMetrics>& steps);

/// Whether a row has any seconds.
bool has_lanes(const std::vector<StepMetrics>& steps);

}  // namespace strata::plot
