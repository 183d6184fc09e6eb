#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "launch/generation/generation_config.h"
#include "launch/generation/prompts.h"
#include "launch/generation/request_reader.h"
#include "launch/generation/result_rows.h"
#include "launch/generation/results_file.h"
#include "parallel/communicator.h"
#include "parallel/text_generation.h"

namespace strata {

/// The rows of one rank that have no result yet: of those, in the order of the file, every rank
/// takes one in turn.
class OwnRows {
 public:
  /// @param path "-": standard input. @param finished borrowed
  OwnRows(const std::filesystem::path& path, bool skip_bad, const FinishedRows& finished,
          const Communicator& communicator);

  /// The next row of this rank; none: there is no more.
  /// @throws FormatError, IoError as RequestReader; UsageError as FinishedRows::has()
  std::optional<NumberedRow> next();

  std::int64_t waiting() const noexcept { return waiting_; }  ///< of all ranks, so far
  std::size_t finished() const noexcept { return found_; }    ///< passed over so far
  const BadRows& bad() const noexcept { return reader_.bad(); }

 private:
  RequestReader reader_;
  const FinishedRows& finished_;
  int rank_, ranks_;
  std::int64_t waiting_ = 0;
  std::size_t found_ = 0;
};

/// Where a feed stands; of all ranks.
struct FeedProgress {
  std::int64_t rows = 0;    ///< that have a result
  std::int64_t errors = 0;  ///< of these, with an error
  std::int64_t tokens = 0;  ///< generated, of texts in flight, too
};

/// RowFeed::Options::show for people: to standard output, at once.
void show_piece(const std::string& piece);

/// Turns rows into requests for TextGeneration and what becomes of them into results on rank 0.
class RowFeed {
 public:
  struct Options {
    GenerationSettings settings = {};  ///< of rows that do not say otherwise
    std::int64_t most_tokens = 0;      ///< of a text, its prompt too
    /// Gets the text of a row as it grows, its last piece when it ends. For a job of one row.
    std::function<void(const std::string& piece)> show = {};
  };
  using Rows = std::function<std::optional<NumberedRow>()>;

  /// Everything is borrowed. @param results on rank 0 where lines are wanted; else null
  RowFeed(Communicator& communicator, const Tokenizer& tokenizer, PromptEncoder& prompts,
          Options options, Rows rows, ResultsFile* results);

  /// What TextGeneration::run() asks for: the next row of this rank as a request. The feed must
  /// outlive the request. A row that the chat template does not know gets its error here.
  std::optional<GenerationRequest> next();
  /// Brings the results of this pass to rank 0 and writes them. Collective: after every pass, and
  /// once at the end.
  void exchange();

  /// As of the last exchange().
  const FeedProgress& progress() const noexcept { return progress_; }
  /// Of the row that failed last on this rank.
  const std::string& last_error() const noexcept { return last_error_; }

 private:
  struct Text;
  void finish(const NumberedRow& row, const ResultRow& result);

  Communicator& communicator_;
  const Tokenizer& tokenizer_;
  PromptEncoder& prompts_;
  Options options_;
  Rows rows_;
  ResultsFile* results_;
  std::string lines_;      // that are not exchanged yet
  FeedProgress own_ = {};  // since the last exchange
  FeedProgress progress_ = {};
  std::string last_error_;
};

}  // namespace strata
