#pragma once

// What benchmarks of text generation share.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/pretrained_model.h"
#include "core/error.h"
#include "core/model/config.h"
#include "parallel/text_generation.h"

namespace strata {

/// A model directory, or a preset with fresh weights; frozen.
inline PretrainedModel open_model(const std::string& name) {
  const bool is_directory =
      std::filesystem::is_regular_file(std::filesystem::path(name) / "config.json");
  PretrainedModel model = is_directory ? load_pretrained(name) : init_pretrained(preset(name), 1);
  model.freeze_all();
  return model;
}

struct ServedTexts {
  double seconds = 0;
  std::int64_t tokens = 0;           ///< generated
  std::int64_t passes = 0;           ///< of them
  GenerationProgress progress = {};  ///< at the end

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

/// Serves all of the texts. @param texts has served none. @throws Error if one is refused
inline ServedTexts serve(TextGeneration& texts, std::span<const GenerationRequest> requests,
                         const std::function<void(const GenerationProgress&)>& after_pass = {}) {
  ServedTexts served;
  std::string error;
  std::size_t next = 0;
  const auto begin = std::chrono::steady_clock::now();
  texts.run(
      [&]() -> std::optional<GenerationRequest> {
        if (next == requests.size()) return std::nullopt;
        GenerationRequest request = requests[next++];
        request.on_finish = [&](const GenerationResult& result) {
          if (result.reason == FinishReason::kError) error = result.error;
          served.tokens += static_cast<std::int64_t>(result.ids.size());
        };
        return request;
      },
      [&](const GenerationProgress& progress) {
        served.progress = progress;
        if (after_pass) after_pass(progress);
      });
  served.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  served.passes = served.progress.passes;
  if (!error.empty()) throw Error(error);
  return served;
}

/// The middle one of several rounds of the same, by seconds. @pre not empty
inline ServedTexts median(std::vector<ServedTexts> rounds) {
  std::sort(rounds.begin(), rounds.end(),
            [](const ServedTexts& a, const ServedTexts& b) { return a.seconds < b.seconds; });
  return rounds[(rounds.size() - 1) / 2];
}

}  // namespace strata
