#include "launch/cli/model_saver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/file.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

void require(const std::error_code& failure, const char* what, const fs::path& path) {
  if (failure) throw IoError(what, path.string(), 0, failure.value());
}

/// Gives `to` the files of `from`, those it has replaced.
void replace_files(const fs::path& from, const fs::path& to) {
  std::error_code failure;
  for (const fs::directory_entry& file : fs::directory_iterator(from)) {
    const fs::path fresh = to / fmt::format(".{}.partial", file.path().filename().string());
    fs::remove(fresh, failure);
    fs::create_hard_link(file.path(), fresh, failure);
    if (failure) fs::copy_file(file.path(), fresh, failure);
    require(failure, "cannot copy the best model", fresh);
    fs::rename(fresh, to / file.path().filename(), failure);
    require(failure, "cannot replace", to / file.path().filename());
  }
  // Weights of an earlier run, cut into other files, would be taken for these.
  for (const fs::directory_entry& file : fs::directory_iterator(to)) {
    const std::string name = file.path().filename().string();
    if (name.find(".safetensors") != std::string::npos && !fs::exists(from / name)) {
      fs::remove(file.path(), failure);
      require(failure, "cannot remove", file.path());
    }
  }
  sync_directory(to);
}

/// Where a checkpoint lies until it is complete.
fs::path partial_of(const fs::path& checkpoint) {
  return checkpoint.parent_path() / fmt::format(".{}.partial", checkpoint.filename().string());
}

}  // namespace

ModelSaver::ModelSaver(Runtime& runtime, Trainer& trainer, const PretrainedModel& source,
                       const fs::path& out, const SaveFlags& flags)
    : runtime_(runtime), trainer_(trainer), source_(source), out_(out), flags_(flags) {}

fs::path ModelSaver::checkpoint(std::int64_t step) const {
  return out_ / fmt::format("checkpoint-{}", step);
}

void ModelSaver::after_step(std::int64_t step) {
  if (underway_ && !trainer_.reading()) end_save();
  if (flags_.save_steps > 0 && step % flags_.save_steps == 0) save(step);
}

void ModelSaver::after_evaluation(std::int64_t step, double loss) {
  if (!flags_.load_best_model_at_end || (best_ && !(loss < best_loss_))) return;
  best_ = step;
  best_loss_ = loss;
  save(step);
}

void ModelSaver::finish(std::int64_t step) {
  end_save();
  const std::int64_t wanted = best_.value_or(step);
  if (std::ranges::count(saved_, wanted) > 0) {
    if (runtime_.communicator().rank() == 0) replace_files(checkpoint(wanted), out_);
    runtime_.communicator().barrier();
  } else {
    // The directory was empty when the run began, or is to be overwritten; the metrics are in it
    // now.
    save_pretrained(runtime_.context(), trainer_, source_, out_, {.overwrite = true});
  }
  const std::string best =
      best_ ? fmt::format("the best model, of step {} with loss {:.4f},", wanted, best_loss_)
            : "the model";
  runtime_.log(fmt::format("saved {} to {}", best, out_.string()));
}

void ModelSaver::save(std::int64_t step) {
  if (std::ranges::count(saved_, step) > 0) return;
  end_save();
  saved_.push_back(step);
  underway_ = std::make_shared<Underway>(Underway{.target = checkpoint(step),
                                                  .obsolete = take_obsolete(),
                                                  .begin = std::chrono::steady_clock::now(),
                                                  .durable = {},
                                                  .warnings = {}});
  const fs::path partial = partial_of(underway_->target);
  std::error_code failure;
  // What a run that was killed has left.
  if (runtime_.communicator().rank() == 0) fs::remove_all(partial, failure);
  runtime_.communicator().barrier();
  save_pretrained_beside(runtime_.context(), trainer_, source_, partial, {},
                         [underway = underway_] { publish(*underway); });
}

/// On a lane of the trainer.
void ModelSaver::publish(Underway& underway) {
  std::error_code failure;
  fs::remove_all(underway.target, failure);  // of the run whose output is overwritten
  fs::rename(partial_of(underway.target), underway.target, failure);
  require(failure, "cannot rename the saved model", partial_of(underway.target));
  sync_directory(underway.target.parent_path());
  for (const fs::path& old : underway.obsolete) {
    fs::remove_all(old, failure);
    if (!failure) continue;
    underway.warnings.push_back(
        fmt::format("{}: could not be removed: {}", old.string(), failure.message()));
  }
  underway.durable = std::chrono::steady_clock::now();
}

void ModelSaver::end_save() {
  if (!underway_) return;
  trainer_.finish_reading();
  for (const std::string& warning : underway_->warnings) runtime_.log().warn(warning);
  const std::chrono::duration<double> seconds = underway_->durable - underway_->begin;
  runtime_.log(fmt::format("saved {} beside the run, in {:.1f} s", underway_->target.string(),
                           seconds.count()));
  underway_.reset();
}

/// All but the newest and the best.
std::vector<fs::path> ModelSaver::take_obsolete() {
  std::vector<fs::path> obsolete;
  if (flags_.save_total_limit == 0 && flags_.save_steps > 0) return obsolete;
  const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(1, flags_.save_total_limit));
  for (std::size_t i = 0; saved_.size() > limit && i < saved_.size();) {
    if (best_ == saved_[i]) {
      ++i;
      continue;
    }
    obsolete.push_back(checkpoint(saved_[i]));
    saved_.erase(saved_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return obsolete;
}

}  // namespace strata::cli
