#include "core/text/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/text/document_files.h"
#include "core/text/open_dataset.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::TemporaryDirectory;
using Tokens = std::vector<std::int32_t>;

Tokens counting(std::int32_t count) {
  Tokens tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// All ids of a batch in the order of the global batch.
Tokens ids_of(const Batch& batch) {
  Tokens ids;
  for (const MicroBatch& micro_batch : batch.micro_batches) {
    ids.insert(ids.end(), micro_batch.ids.begin(), micro_batch.ids.end());
  }
  return ids;
}

TEST(Dataset, PredictsTheNextTokenOfEveryTokenOnceAnEpoch) {
  Dataset data(counting(101), {.sequence_length = 10, .held_out = 0.0});
  ASSERT_EQ(data.sequences(), 10);
  std::set<std::int32_t> seen;
  for (int step = 0; step < 5; ++step) {
    const Batch batch = data.next({.sequences = 2});
    ASSERT_EQ(batch.micro_batches.size(), 1u);
    const MicroBatch& m = batch.micro_batches[0];
    EXPECT_EQ(m.tokens(), 20);
    EXPECT_EQ(batch.counted_labels(), 20);
    EXPECT_TRUE(m.first_key.empty());
    for (std::size_t t = 0; t < 20; ++t) {
      EXPECT_EQ(m.labels[t], m.ids[t] + 1);
      EXPECT_EQ(m.positions[t], static_cast<std::int32_t>(t % 10));
      EXPECT_TRUE(seen.insert(m.ids[t]).second);
    }
  }
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_EQ(data.cursor(), (DataCursor{1, 0}));
}

TEST(Dataset, GivesTheSameGlobalBatchForAnyNumberOfRanks) {
  const DatasetOptions options{.sequence_length = 7, .held_out = 0.1, .seed = 3};
  Dataset one(counting(1000), options);
  for (int step = 0; step < 30; ++step) {  // over several epochs
    const DataCursor before = one.cursor();
    const Tokens want = ids_of(one.next({.sequences = 12}));
    for (const int ranks : {1, 2, 3, 4}) {
      Tokens all;
      for (int rank = 0; rank < ranks; ++rank) {
        Dataset part(counting(1000), options);
        part.seek(before);
        const Batch batch =
            part.next({.sequences = 1, .micro_batches = 12 / ranks, .rank = rank, .ranks = ranks});
        EXPECT_EQ(batch.first_sequence, step * 12 + rank * (12 / ranks));
        const Tokens ids = ids_of(batch);
        all.insert(all.end(), ids.begin(), ids.end());
        EXPECT_EQ(part.cursor(), one.cursor());
      }
      EXPECT_EQ(all, want) << ranks << " ranks";
    }
  }
}

TEST(Dataset, ShufflesEveryEpochAndSeedDifferently) {
  const auto order = [](std::uint64_t seed, std::int64_t epoch) {
    Tokens places;
    for (std::int64_t i = 0; i < 100; ++i) {
      places.push_back(static_cast<std::int32_t>(shuffled(i, 100, seed, epoch)));
    }
    return places;
  };
  EXPECT_EQ(order(1, 0), order(1, 0));
  EXPECT_NE(order(1, 0), order(1, 1));
  EXPECT_NE(order(1, 0), order(2, 0));
  EXPECT_NE(order(1, 0), counting(100));
}

TEST(Dataset, ShufflesWithoutLosingASequence) {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097}) {
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < count; ++i) seen.insert(shuffled(i, count, 7, 2));
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), count);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), count - 1);
  }
}

TEST(Dataset, ContinuesExactlyWhereItsCursorWasTaken) {
  Dataset straight(counting(500), {.sequence_length = 9});
  for (int step = 0; step < 10; ++step) straight.next({.sequences = 4});
  const DataCursor cursor = straight.cursor();
  Dataset resumed(counting(500), {.sequence_length = 9});
  resumed.seek(cursor);
  for (int step = 0; step < 20; ++step) {
    EXPECT_EQ(ids_of(resumed.next({.sequences = 4})), ids_of(straight.next({.sequences = 4})));
  }
  EXPECT_THROW(resumed.seek({0, resumed.sequences()}), Error);
  EXPECT_THROW(resumed.seek({-1, 0}), Error);
}

TEST(Dataset, NeverTrainsOnWhatIsHeldOut) {
  Dataset data(counting(1000), {.sequence_length = 8, .held_out = 0.2});
  EXPECT_EQ(data.training_tokens().size(), 800u);
  EXPECT_EQ(data.held_out_tokens().front(), 800);
  for (int step = 0; step < 300; ++step) {
    const Batch batch = data.next({});
    for (const std::int32_t label : batch.micro_batches[0].labels) EXPECT_LT(label, 800);
  }
}

TEST(Dataset, EvaluatesEveryHeldOutTokenOnceOnAnyNumberOfRanks) {
  const Dataset data(counting(1000), {.sequence_length = 13, .held_out = 0.2});
  for (const int ranks : {1, 2, 3}) {
    std::set<std::int32_t> labels;
    std::int64_t counted = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const Batch batch = data.held_out({.sequences = 2, .rank = rank, .ranks = ranks});
      counted += batch.counted_labels();
      for (const MicroBatch& m : batch.micro_batches) {
        EXPECT_EQ(m.ids.size(), static_cast<std::size_t>(m.tokens()));
        for (std::size_t t = 0; t < m.labels.size(); ++t) {
          if (m.labels[t] == kIgnoredLabel) continue;
          EXPECT_EQ(m.labels[t], m.ids[t] + 1);
          labels.insert(m.labels[t]);
        }
      }
    }
    EXPECT_EQ(counted, 199);
    EXPECT_EQ(labels.size(), 199u);
    EXPECT_EQ(*labels.begin(), 801);
  }
}

TEST(Dataset, MasksDocumentsWhenAsked) {
  const Tokens tokens{1, 2, 9, 3, 4, 5, 9, 6, 7};
  Dataset data(
      tokens,
      {.sequence_length = 8, .held_out = 0.0, .mask_documents = true, .end_of_document = 9});
  const MicroBatch m = data.next({}).micro_batches.at(0);
  EXPECT_EQ(m.ids, (Tokens{1, 2, 9, 3, 4, 5, 9, 6}));
  EXPECT_EQ(m.labels, (Tokens{2, 9, -100, 4, 5, 9, -100, 7}));
  EXPECT_EQ(m.first_key, (Tokens{0, 0, 0, 3, 3, 3, 3, 7}));
  EXPECT_EQ(m.positions, (Tokens{0, 1, 2, 0, 1, 2, 3, 0}));
  Dataset whole(
      counting(20),
      {.sequence_length = 8, .held_out = 0.0, .mask_documents = true, .end_of_document = 99});
  EXPECT_TRUE(whole.next({}).micro_batches.at(0).first_key.empty());
}

TEST(Dataset, RefusesTooLittleTextAndWrongOptions) {
  test::expect_message<UsageError>(
      [] { Dataset(counting(8), {.sequence_length = 8, .held_out = 0.0}); },
      {"8 tokens", "shorter sequences"});
  EXPECT_NO_THROW(Dataset(counting(9), {.sequence_length = 8, .held_out = 0.0}));
  EXPECT_THROW(Dataset(counting(9), {.sequence_length = 0}), UsageError);
  EXPECT_THROW(Dataset(counting(9), {.sequence_length = 1, .held_out = 1.0}), UsageError);
  EXPECT_THROW(Dataset(counting(9), {.sequence_length = 1, .held_out = std::nan("")}), UsageError);
}

TEST(DocumentFiles, AreReadOnceAndEndEachWithItsToken) {
  const TemporaryDirectory directory;
  const auto a = test::write_file(directory / "a.txt", "ab");
  const auto b = test::write_file(directory / "b.txt", "c");
  const auto empty = test::write_file(directory / "empty.txt", "");
  const auto link = directory / "link.txt", hard = directory / "hard.txt";
  std::filesystem::create_symlink(b, link);
  std::filesystem::create_hard_link(a, hard);
  const std::vector<std::filesystem::path> named{a, hard, link, b, empty, a};
  const auto files = document_files(named);
  EXPECT_EQ(files, (std::vector<std::filesystem::path>{a, link, empty}));
  EXPECT_EQ(read_documents(files, *make_byte_tokenizer()), (Tokens{'a', 'b', 256, 'c', 256}));
}

TEST(OpenDataset, KnowsWhereDocumentsEnd) {
  const TemporaryDirectory directory;
  const std::vector<std::filesystem::path> files{test::write_file(directory / "a", "abc"),
                                                 test::write_file(directory / "b", "de")};
  const auto tokenizer = make_byte_tokenizer();
  Dataset data = open_dataset(files, *tokenizer,
                              {.sequence_length = 6, .held_out = 0.0, .mask_documents = true});
  const Batch batch = data.next({});
  EXPECT_EQ(ids_of(batch), (Tokens{'a', 'b', 'c', 256, 'd', 'e'}));
  EXPECT_EQ(batch.micro_batches[0].first_key, (Tokens{0, 0, 0, 0, 4, 4}));
}

TEST(DocumentFiles, RefuseWhatIsNoText) {
  const TemporaryDirectory directory;
  using Paths = std::vector<std::filesystem::path>;
  const auto tokenizer = make_byte_tokenizer();
  test::expect_message<UsageError>([&] { document_files(Paths{directory.path()}); },
                                   {directory.path(), "directory"});
  test::expect_message<UsageError>([&] { document_files(Paths{"/dev/null"}); },
                                   {"/dev/null", "regular file"});
  test::expect_message<IoError>([&] { document_files(Paths{directory / "no"}); },
                                {directory.path(), "No such file"});
  EXPECT_THROW(document_files({}), UsageError);
  const Paths empty{test::write_file(directory / "e", "")};
  test::expect_message<UsageError>([&] { read_documents(empty, *tokenizer); },
                                   {empty[0].string(), "no text"});
  const Paths big{test::write_file(directory / "b", "12345")};
  test::expect_message<UsageError>([&] { read_documents(big, *tokenizer, 4); },
                                   {big[0].string(), "5 bytes", "4"});
}

TEST(BigramLoss, IsTheEntropyOfSmoothedPairs) {
  const Tokens train{0, 1, 0, 1, 0}, held{0, 1, 1};
  // 0 is followed by 1 twice: (2+1)/(2+2). 1 is never followed by 1: (0+1)/(2+2).
  EXPECT_NEAR(bigram_loss(train, held, 2), -(std::log(0.75) + std::log(0.25)) / 2, 1e-12);
  EXPECT_NEAR(bigram_loss({}, held, 5), std::log(5.0), 1e-12);
  EXPECT_EQ(bigram_loss(train, Tokens{1}, 2), 0.0);
}

/// 237 KB on Debian 12. Figures of an independent implementation: 2.6046 held out, 2.4409 within.
TEST(BigramLoss, OfTheLicenceTextsIsWhatItIs) {
  const std::filesystem::path folder = "/usr/share/common-licenses";
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << folder << " is not here";
  std::vector<std::filesystem::path> named;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file() && !entry.is_symlink()) named.push_back(entry.path());
  }
  std::sort(named.begin(), named.end());
  const auto tokenizer = make_byte_tokenizer();
  const Tokens tokens = read_documents(document_files(named), *tokenizer);
  if (tokens.size() != 237334) GTEST_SKIP() << "another edition of the texts is installed";
  const Dataset data(tokens, {.sequence_length = 256});
  EXPECT_NEAR(bigram_loss(data.training_tokens(), data.held_out_tokens(), 257), 2.6046, 1e-4);
  EXPECT_NEAR(bigram_loss(tokens, tokens, 257, 0.0), 2.4409, 1e-4);
}

}  // namespace
}  // namespace strata
