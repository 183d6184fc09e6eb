#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/pretrained_model.h"
#include "launch/runtime.h"

namespace strata::cli {

/// When `strata train` saves the model, as the Hugging Face Trainer's flags say it.
struct SaveFlags {
  std::int64_t save_steps = 0;        ///< 0: at the end only
  std::int64_t save_total_limit = 0;  ///< 0: all are kept
  bool load_best_model_at_end = false;
};

/// Saves the model of a run: in `out` at its end, in out/checkpoint-STEP on the way. A checkpoint
/// is written beside the step that follows, under another name, and renamed when it is durable;
/// older ones are removed after that.
///
/// Every method is collective. @throws IoError on rank 0, where writing a checkpoint failed in the
/// call after that
class ModelSaver {
 public:
  /// All borrowed.
  ModelSaver(Runtime& runtime, Trainer& trainer, const PretrainedModel& source,
             const std::filesystem::path& out, const SaveFlags& flags);

  void after_step(std::int64_t step);
  /// Keeps the model when `loss` is the lowest so far and the best one is wanted.
  void after_evaluation(std::int64_t step, double loss);
  /// Saves the model of `step`, or the best one if that is wanted and there is one. Blocks until it
  /// is durable.
  void finish(std::int64_t step);

 private:
  /// A checkpoint that is being written.
  struct Underway {
    std::filesystem::path target;
    std::vector<std::filesystem::path> obsolete;  // once it is durable
    std::chrono::steady_clock::time_point begin;
    std::chrono::steady_clock::time_point durable;  // set before the trainer stops reading
    std::vector<std::string> warnings;              // likewise
  };

  std::filesystem::path checkpoint(std::int64_t step) const;
  void save(std::int64_t step);
  static void publish(Underway& underway);
  void end_save();
  std::vector<std::filesystem::path> take_obsolete();

  Runtime& runtime_;
  Trainer& trainer_;
  const PretrainedModel& source_;
  const std::filesystem::path& out_;
  const SaveFlags& flags_;
  std::vector<std::int64_t> saved_;     // steps, ascending
  std::shared_ptr<Underway> underway_;  // the trainer's lane has it too
  std::optional<std::int64_t> best_;
  double best_loss_ = 0;
};

}  // namespace strata::cli
