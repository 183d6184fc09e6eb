#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "checkpoint/pretrained_model.h"
#include "core/cache.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/progress.h"
#include "core/trace.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"
#include "launch/cli/generate_options.h"
#include "launch/cli/generator_setup.h"
#include "launch/core_binding.h"
#include "launch/generation/generation_config.h"
#include "launch/generation/prompts.h"
#include "launch/generation/row_feed.h"
#include "launch/runtime.h"
#include "parallel/generator.h"
#include "parallel/text_generation.h"

namespace strata::cli {
namespace {

/// Of standard input, whose rows are not known before.
constexpr std::int64_t kUsualLength = 4096;
constexpr std::int64_t kUnknownRows = 1 << 16;

/// What the first pass over the rows finds.
struct RowFacts {
  std::int64_t rows = 0;     ///< to be served, by all ranks
  std::int64_t own = 0;      ///< of these, by this rank
  std::int64_t longest = 1;  ///< tokens of a text with what may be generated, on any rank
  GenerationWork work = {};  ///< of all ranks
};

class Generation {
 public:
  Generation(Runtime& runtime, const GenerateOptions& options)
      : options_(options),
        runtime_(runtime),
        world_(runtime.communicator()),
        log_(world_.rank(), stderr, stderr),
        source_(load_pretrained(options.model)),
        tokenizer_(source_.tokenizer()),
        prompts_(
            tokenizer_,
            [this] {
              return read_chat_template(options_.model, tokenizer_, options_.chat_template);
            },
            options.parse_special) {
    source_.freeze_all();
    settle();
    open_results();
  }

  int run() {
    const RowFacts facts = examine_rows();
    if (facts.rows == 0 && !from_input()) {
      log_.info(finished_.count() > 0 ? "every row has its result" : "there is no row");
      return 0;
    }
    const GeneratorSetup setup =
        set_up_generator(context(), source_, options_.placement, options_.kept, needs(facts));
    Trace trace(!options_.trace.empty());
    Generator generator(context(), source_.model(), setup.options, source_.source(), setup.locator,
                        &trace);
    TextGeneration generation(context(), generator,
                              {.max_sequences = setup.options.sequences,
                               .max_tokens = most_tokens(),
                               .unknown = unknown_ids(tokenizer_, source_.config().vocab_size),
                               .speculate = options_.speculate,
                               .speculate_rows = setup.hidden_rows});
    world_.barrier();
    trace.set_origin();
    const int code = serve(generation, facts, generator, words(setup.computing));
    write_trace_of_all(trace);
    return code;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }
  // Results may go to standard output, so everything else goes to standard error.
  Context context() { return {runtime_.device(), world_, log_}; }
  bool from_input() const { return options_.prompts == "-"; }
  /// The text of --prompt is shown as it grows.
  bool shows() const { return options_.prompt && options_.out.empty(); }

  /// Tokens that a text may have, whatever it asks for.
  std::int64_t most_tokens() const {
    const std::int64_t positions = source_.config().max_positions;
    return options_.max_length > 0 ? std::min(options_.max_length, positions) : positions;
  }

  void settle() {
    settings_ = choose_settings(options_, tokenizer_, log_);
    if (options_.max_length > source_.config().max_positions) {
      throw UsageError(fmt::format("--max_length: {} is more than the model's {} positions",
                                   options_.max_length, source_.config().max_positions));
    }
    if (options_.max_length > 0) settings_.max_length = options_.max_length;
    log_.info(fmt::format("sampling: {}", describe(settings_, tokenizer_)));
  }

  /// Rank 0 has the file; the others hear of the rows that it has.
  void open_results() {
    if (world_.rank() == 0 && !shows()) results_.emplace(options_.out, options_.resume);
    if (!options_.resume) return;
    const std::vector<std::byte> own =
        results_ ? results_->finished().bytes() : std::vector<std::byte>();
    finished_ = FinishedRows(options_.out.string(), world_.gather_bytes(own).front());
  }

  NumberedRow prompt_row() const {
    NumberedRow row{.where = "--prompt", .fingerprint = hash_text(*options_.prompt)};
    if (options_.chat) {
      row.row.messages = {{"user", *options_.prompt}};
    } else {
      row.row.prompt = *options_.prompt;
    }
    return row;
  }

  /// The rows of this rank, from the first one on.
  RowFeed::Rows rows() {
    if (options_.prompt) {
      const auto left = std::make_shared<int>(world_.rank() == 0 ? 1 : 0);
      return [this, left] { return (*left)-- > 0 ? std::optional(prompt_row()) : std::nullopt; };
    }
    own_rows_ = std::make_unique<OwnRows>(options_.prompts, options_.skip_bad, finished_, world_);
    return [this] { return own_rows_->next(); };
  }

  /// Reads all rows once, so that mistakes are known before work. Collective.
  RowFacts examine_rows() {
    RowFacts facts;
    if (from_input()) {
      if (world_.size() > 1) {
        throw UsageError(
            fmt::format("-: standard input reaches one rank, and there are {}; use --prompts FILE",
                        world_.size()));
      }
      facts.own = kUnknownRows;
      facts.longest =
          options_.max_length > 0 ? most_tokens() : std::min(kUsualLength, most_tokens());
      if (!new_tokens(settings_, 0)) refuse_no_length("");
      return facts;
    }
    const RowFeed::Rows next = rows();
    while (const std::optional<NumberedRow> row = next()) {
      ++facts.own;
      facts.longest = std::max(facts.longest, add_work(*row, facts.work));
    }
    for (std::int64_t* sum :
         {&facts.work.texts, &facts.work.prompt_tokens, &facts.work.new_tokens}) {
      *sum = static_cast<std::int64_t>(world_.sum(static_cast<double>(*sum)));
    }
    facts.longest = static_cast<std::int64_t>(world_.max(static_cast<double>(facts.longest)));
    facts.rows = 1;
    if (own_rows_ == nullptr) return facts;
    facts.rows = own_rows_->waiting();
    finished_.expect_all(own_rows_->finished());
    warn_of_bad_rows();
    if (finished_.count() > 0) {
      log_.info(
          fmt::format("{} rows have their results, {} are left", finished_.count(), facts.rows));
    }
    return facts;
  }

  void warn_of_bad_rows() {
    const BadRows& bad = own_rows_->bad();
    if (bad.count == 0) return;
    log_.warn(fmt::format("{} bad {} passed over; the first: {}", bad.count,
                          bad.count == 1 ? "row is" : "rows are", bad.first));
  }

  [[noreturn]] void refuse_no_length(const std::string& where) const {
    throw UsageError(
        fmt::format("{}neither the model nor a flag says how many tokens to "
                    "generate; use --max_new_tokens",
                    where.empty() ? "" : where + ": "));
  }

  /// Counts the row if it can be served. @return what its text may grow to
  std::int64_t add_work(const NumberedRow& row, GenerationWork& work) {
    std::int64_t prompt = 0;
    try {
      prompt = static_cast<std::int64_t>(prompts_.encode(row.row).size());
    } catch (const FormatError&) {  // gets its error as a result
      return 1;
    }
    const auto more = new_tokens(overridden(settings_, row.row.overrides), prompt);
    if (!more) refuse_no_length(row.where);
    const bool fits = prompt > 0 && prompt <= most_tokens();
    if (options_.prompt && !fits) {
      throw UsageError(fmt::format("--prompt: has {} tokens, and 1 to {} can be gone on with",
                                   prompt, most_tokens()));
    }
    if (!fits) return 1;  // gets its error as a result
    const std::int64_t all = std::min(prompt + *more, most_tokens());
    ++work.texts;
    work.prompt_tokens += prompt;
    work.new_tokens += all - prompt;
    return all;
  }

  GeneratorNeeds needs(const RowFacts& facts) {
    // Every rank plans alike.
    const auto most = static_cast<std::int64_t>(world_.max(static_cast<double>(facts.own)));
    return {.sequences = most,
            .sequence_tokens = std::max<std::int64_t>(facts.longest, 1),  // 0: no row is good
            .batch = options_.batch,
            .work = facts.work,
            .progress = !options_.no_progress};
  }

  /// @param computing what binds where the weights come in time
  int serve(TextGeneration& generation, const RowFacts& facts, const Generator& generator,
            const char* computing) {
    const RowFeed::Rows rows_left = rows();
    RowFeed::Options feed_options{.settings = settings_, .most_tokens = most_tokens()};
    if (shows()) {
      feed_options.show = show_piece;
    }
    bool stopped = false;
    std::exception_ptr mistake;  // in a row of standard input: what is in flight is served first
    RowFeed feed(
        world_, tokenizer_, prompts_, std::move(feed_options),
        [&]() -> std::optional<NumberedRow> {
          stopped = stopped || runtime_.stop_requested();
          if (stopped || mistake) return std::nullopt;
          try {
            return rows_left();
          } catch (const FormatError&) {
            mistake = std::current_exception();
            return std::nullopt;
          }
        },
        results_ ? &*results_ : nullptr);
    const auto begin = Clock::now();
    const bool terminal_is_taken = options_.out.empty() && isatty(STDOUT_FILENO) == 1;
    {
      Progress progress(log_, "row", static_cast<std::uint64_t>(facts.rows),
                        !options_.no_progress && !terminal_is_taken);
      generation.run([&] { return feed.next(); },
                     [&](const GenerationProgress& pass) {
                       feed.exchange();
                       proposed_ = pass.proposed;
                       accepted_ = pass.accepted;
                       const double seconds = seconds_since(begin);
                       const double waited = generator.seconds_waited() / seconds;
                       progress.update(
                           static_cast<std::uint64_t>(feed.progress().rows),
                           fmt::format("{:.3g} tokens/s, bound by {}; {} in flight",
                                       static_cast<double>(feed.progress().tokens) / seconds,
                                       waited > 0.5 ? words(GenerationBound::kStream) : computing,
                                       pass.in_flight));
                     });
      feed.exchange();
    }
    if (results_) results_->sync();
    if (mistake) std::rethrow_exception(mistake);
    const double seconds = seconds_since(begin);
    return report(feed, seconds, world_.max(stopped ? 1 : 0) > 0);
  }

  void write_trace_of_all(const Trace& trace) {
    if (options_.trace.empty()) return;
    const auto ranks = world_.gather_bytes(trace.to_bytes());
    if (world_.rank() == 0) write_trace(options_.trace.string(), ranks);
  }

  int report(const RowFeed& feed, double seconds, bool stopped) {
    const FeedProgress& done = feed.progress();
    if (shows() && world_.rank() == 0) {
      if (done.errors > 0) throw UsageError(feed.last_error());
      std::fputc('\n', stdout);
      std::fflush(stdout);
    }
    log_.info(fmt::format("{} {}, {} tokens in {:.1f} s: {:.1f} tokens/s", done.rows,
                          done.rows == 1 ? "result" : "results", done.tokens, seconds,
                          static_cast<double>(done.tokens) / std::max(seconds, 1e-9)));
    if (options_.speculate > 0) {
      log_.info(fmt::format("{:.0f} tokens proposed, {:.0f} accepted",
                            world_.sum(static_cast<double>(proposed_)),
                            world_.sum(static_cast<double>(accepted_))));
    }
    if (done.errors > 0) {
      log_.warn(fmt::format("{} {} an error; see \"error\" in the results", done.errors,
                            done.errors == 1 ? "row has" : "rows have"));
    }
    if (from_input()) warn_of_bad_rows();
    if (stopped) log_.info("stopped; --resume goes on with the rows that are left");
    return 0;
  }

  const GenerateOptions& options_;
  Runtime& runtime_;
  Communicator& world_;
  Log log_;
  PretrainedModel source_;
  const Tokenizer& tokenizer_;
  PromptEncoder prompts_;
  GenerationSettings settings_;
  std::optional<ResultsFile> results_;
  FinishedRows finished_;
  std::unique_ptr<OwnRows> own_rows_;
  std::int64_t proposed_ = 0, accepted_ = 0;  // tokens, on this rank
};

}  // namespace

void add_generate(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand(
      "generate", "Continues one text or many, with a model that may be larger than memory");
  add_generate_flags(*command, *options);
  command->callback([options, &chosen] {
    chosen = [options] {
      check(*options);
      return run_generation(options->placement, options->kept,
                            [&](Runtime& runtime) { return Generation(runtime, *options).run(); });
    };
  });
}

}  // namespace strata::cli
