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
void publish(const fs::path& from, const fs::path& to) {
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
  sync_directory(to);
}

}  // namespace

ModelSaver::ModelSaver(Runtime& runtime, Trainer& trainer, const PretrainedModel& source,
                       const fs::path& out, const SaveFlags& flags)
    : runtime_(runtime), trainer_(trainer), source_(source), out_(out), flags_(flags) {}

fs::path ModelSaver::checkpoint(std::int64_t step) const {
  return out_ / fmt::format("checkpoint-{}", step);
}

void ModelSaver::after_step(std::int64_t step) {
  if (flags_.save_steps > 0 && step % flags_.save_steps == 0) save(step);
}

void ModelSaver::after_evaluation(std::int64_t step, double loss) {
  if (!flags_.load_best_model_at_end || (best_ && !(loss < best_loss_))) return;
  best_ = step;
  best_loss_ = loss;
  save(step);
}

void ModelSaver::finish(std::int64_t step) {
  if (best_ && *best_ != step) {
    if (runtime_.communicator().rank() == 0) publish(checkpoint(*best_), out_);
    runtime_.communicator().barrier();
    runtime_.log(fmt::format("saved the best model, of step {} with loss {:.4f}, to {}", *best_,
                             best_loss_, out_.string()));
    return;
  }
  // The directory was empty when the run began, or is to be overwritten; the metrics are in it now.
  save_pretrained(runtime_.context(), trainer_, source_, out_, {.overwrite = true});
  runtime_.log(fmt::format("saved the model to {}", out_.string()));
}

void ModelSaver::save(std::int64_t step) {
  if (std::ranges::count(saved_, step) > 0) return;
  const auto begin = std::chrono::steady_clock::now();
  const bool first = runtime_.communicator().rank() == 0;
  const fs::path target = checkpoint(step);
  const fs::path partial = out_ / fmt::format(".checkpoint-{}.partial", step);
  std::error_code failure;
  if (first) fs::remove_all(partial, failure);  // of a run that was killed
  runtime_.communicator().barrier();
  save_pretrained(runtime_.context(), trainer_, source_, partial);
  if (first) {
    fs::remove_all(target, failure);  // of the run whose output is overwritten
    fs::rename(partial, target, failure);
    require(failure, "cannot rename the saved model", partial);
    sync_directory(out_);
  }
  saved_.push_back(step);
  remove_old();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  runtime_.log(fmt::format("saved {} in {:.1f} s", target.string(), seconds.count()));
}

/// Leaves the newest and the best.
void ModelSaver::remove_old() {
  if (flags_.save_total_limit == 0 && flags_.save_steps > 0) return;
  const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(1, flags_.save_total_limit));
  for (std::size_t i = 0; saved_.size() > limit && i < saved_.size();) {
    if (best_ == saved_[i]) {
      ++i;
      continue;
    }
    std::error_code failure;
    if (runtime_.communicator().rank() == 0) fs::remove_all(checkpoint(saved_[i]), failure);
    if (failure) {
      runtime_.log().warn(fmt::format("{}: could not be removed: {}",
                                      checkpoint(saved_[i]).string(), failure.message()));
    }
    saved_.erase(saved_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace strata::cli
