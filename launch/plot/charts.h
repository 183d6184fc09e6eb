#pragma once

#include <string>
#include <vector>

#include "launch/plot/run_files.h"

namespace strata::plot {

/// Diagrams of one or several runs over their steps as one SVG document: loss with evaluations,
/// learning rate, gradient norm, speed, memory, swap traffic, and the time of every lane of each
/// run. It has no scripts and refers to nothing outside; browsers show it, in light or dark as the
/// reader's system is. What no run has a value of is left out.
std::string draw_runs(const std::vector<Run>& runs);

}  // namespace strata::plot
