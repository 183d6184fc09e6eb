#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained_model.h"
#include "core/progress.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/generator_setup.h"
#include "launch/cli/placement.h"
#include "launch/generation/line_reader.h"
#include "launch/generation/results_file.h"
#include "launch/generation/score_rows.h"
#include "launch/runtime.h"

namespace strata::cli {
namespace {

struct ScoreOptions {
  std::filesystem::path model;
  std::filesystem::path data;
  std::filesystem::path out;
  std::int64_t batch = 64;
  KeptOptions kept;
  bool no_progress = false;
  PlacementOptions placement;
};

/// A row that is being scored.
struct Pending {
  std::string id;
  std::size_t pieces = 0;  // under way
  ScoreSum sum;
};

/// What all rows of a rank came to.
struct Totals {
  double log_likelihood = 0, tokens = 0, rows = 0, errors = 0;
};

class Scoring {
 public:
  Scoring(Runtime& runtime, const ScoreOptions& options)
      : options_(options),
        runtime_(runtime),
        world_(runtime.communicator()),
        log_(world_.rank(), stderr, stderr),
        source_(load_pretrained(options.model)),
        tokenizer_(source_.tokenizer()) {
    source_.freeze_all();
  }

  int run() {
    const std::int64_t most = source_.config().max_positions;
    const std::int64_t rows = examine(most);
    std::optional<ResultsFile> results;
    if (world_.rank() == 0) results.emplace(options_.out, false);
    const Context context{runtime_.device(), world_, log_};
    const GeneratorSetup setup =
        set_up_generator(context, source_, options_.placement, options_.kept,
                         {.sequences = options_.batch,
                          .sequence_tokens = longest_ + 1,
                          .batch = {.most = options_.batch},
                          .work = {},
                          .progress = !options_.no_progress});
    Generator generator(context, source_.model(), setup.options, source_.source(), setup.locator);
    TextGeneration texts(context, generator,
                         {.max_sequences = options_.batch, .max_tokens = most, .unknown = {}});
    lines_.emplace(options_.data);
    Progress progress(log_, "row", static_cast<std::uint64_t>(rows), !options_.no_progress);
    double done = 0;
    const auto exchange = [&] {
      const std::span<const std::byte> own = std::as_bytes(std::span(finished_));
      for (const std::vector<std::byte>& lines : world_.gather_bytes(own)) {
        const auto* text = reinterpret_cast<const char*>(lines.data());
        if (results) results->append({text, lines.size()});
      }
      finished_.clear();
      done = world_.sum(totals_.rows);
    };
    texts.run([&] { return next(most); },
              [&](const GenerationProgress& pass) {
                exchange();
                progress.update(static_cast<std::uint64_t>(done),
                                fmt::format("{} in flight", pass.in_flight));
              });
    exchange();
    if (results) results->sync();
    return report();
  }

 private:
  /// Reads all rows once, so that mistakes are known before work. @return their number
  std::int64_t examine(std::int64_t most) {
    LineReader lines(options_.data);
    std::int64_t rows = 0;
    while (const std::optional<std::string> line = lines.next()) {
      const std::string where = lines.where();
      const ScoreRow row = parse_score_row(*line, where);
      if (rows++ % world_.size() != world_.rank()) continue;
      try {
        for (const ScorePiece& piece : score_pieces(row, tokenizer_, most)) {
          longest_ = std::max(longest_, static_cast<std::int64_t>(piece.ids.size()));
        }
      } catch (const FormatError&) {  // gets its error as a result
      }
    }
    if (rows == 0) throw UsageError(fmt::format("--data: {} has no row", options_.data.string()));
    longest_ = static_cast<std::int64_t>(world_.max(static_cast<double>(longest_)));
    return rows;
  }

  /// The next piece of this rank's rows.
  std::optional<GenerationRequest> next(std::int64_t most) {
    while (pieces_.empty()) {
      const std::optional<std::string> line = lines_->next();
      if (!line) return std::nullopt;
      const std::int64_t number = number_++;
      if (number % world_.size() != world_.rank()) continue;
      const ScoreRow row = parse_score_row(*line, lines_->where());
      current_ = std::make_shared<Pending>();
      current_->id = row.id.empty() ? std::to_string(number) : row.id;
      try {
        for (ScorePiece& piece : score_pieces(row, tokenizer_, most)) {
          pieces_.push_back(std::move(piece));
        }
        current_->pieces = pieces_.size();
      } catch (const FormatError& error) {
        current_->sum.error = error.what();
        finish(*current_);
      }
    }
    GenerationRequest request;
    request.prompt = std::move(pieces_.front().ids);
    request.score_from = pieces_.front().score_from;
    request.max_new_tokens = 0;
    request.on_finish = [this, row = current_](const GenerationResult& result) {
      row->sum.add(result);
      if (--row->pieces == 0) finish(*row);
    };
    pieces_.pop_front();
    return request;
  }

  void finish(const Pending& row) {
    finished_ += row.sum.json(row.id) + "\n";
    totals_.rows += 1;
    if (!row.sum.error.empty()) {
      totals_.errors += 1;
      return;
    }
    totals_.log_likelihood += row.sum.log_likelihood;
    totals_.tokens += static_cast<double>(row.sum.tokens);
  }

  int report() {
    const double tokens = world_.sum(totals_.tokens), sum = world_.sum(totals_.log_likelihood);
    const double errors = world_.sum(totals_.errors), rows = world_.sum(totals_.rows);
    if (tokens > 0) {
      log_.info(
          fmt::format("{:.0f} rows, {:.0f} scored tokens: log-likelihood {:.6g}, loss {:.4f}, "
                      "perplexity {:.4g}",
                      rows, tokens, sum, -sum / tokens, std::exp(-sum / tokens)));
    }
    if (errors > 0) {
      log_.warn(fmt::format("{:.0f} {} an error; see \"error\" in the results", errors,
                            errors == 1 ? "row has" : "rows have"));
    }
    return 0;
  }

  const ScoreOptions& options_;
  Runtime& runtime_;
  Communicator& world_;
  Log log_;
  PretrainedModel source_;
  const Tokenizer& tokenizer_;
  std::int64_t longest_ = 2;  // tokens of a piece, on any rank
  std::optional<LineReader> lines_;
  std::int64_t number_ = 0;  // of the next line
  std::shared_ptr<Pending> current_;
  std::deque<ScorePiece> pieces_;  // of current_, not yet under way
  std::string finished_;           // lines that are not exchanged yet
  Totals totals_;
};

}  // namespace

void add_score(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<ScoreOptions>();
  CLI::App* command = app.add_subcommand(
      "score", "Log-likelihoods of texts, or of continuations of contexts, under a model");
  add_path(*command, "--model,-m", options->model, "DIR", "config.json and safetensors")
      ->required();
  add_path(*command, "--data", options->data, "FILE",
           "rows of JSON: {\"text\"} or {\"context\", \"continuation\"}, with an \"id\" as wanted")
      ->required();
  add_path(*command, "--out", options->out, "FILE", "where results go; default standard output");
  add_whole(*command, "--batch", options->batch, 1, 1 << 16,
            "texts in flight on a rank at most; a pass over the weights serves them all");
  add_kept_flags(*command, options->kept);
  add_switch(*command, "--no_progress", options->no_progress, "no progress bar");
  add_streaming_flags(*command, options->placement);
  command->callback([options, &chosen] {
    chosen = [options] {
      check_directory("--model", options->model);
      check_files("--data", {options->data});
      if (options->placement.compute == Dtype::kF16) {
        throw UsageError("--compute fp16: is for training; score in bf16 or fp32");
      }
      check(options->placement);
      return run_generation(options->placement, options->kept,
                            [&](Runtime& runtime) { return Scoring(runtime, *options).run(); });
    };
  });
}

}  // namespace strata::cli
