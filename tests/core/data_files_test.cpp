#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>

#include "core/cache.h"
#include "core/error.h"
#include "core/text/open_data.h"
#include "core/text/token_cache.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::TemporaryDirectory;
using Ids = std::vector<std::int32_t>;
using Paths = std::vector<std::filesystem::path>;

/// All documents of a reader, continued ones in one piece.
std::vector<Document> documents_of(DocumentReader& reader) {
  std::vector<Document> documents;
  for (std::int64_t piece = 0; piece < reader.pieces(); ++piece) {
    reader.read(piece, [&](const Document& document, bool starts) {
      if (starts || documents.empty()) documents.emplace_back();
      Document& last = documents.back();
      last.ids.insert(last.ids.end(), document.ids.begin(), document.ids.end());
      last.trained.insert(last.trained.end(), document.trained.begin(), document.trained.end());
    });
  }
  return documents;
}

std::string bytes_of(const Ids& ids) {
  std::string text;
  for (const std::int32_t id : ids) text += id == 256 ? '|' : static_cast<char>(id);
  return text;
}

TEST(DataFiles, AreReadOnce) {
  const TemporaryDirectory directory;
  const auto a = test::write_file(directory / "a.txt", "ab");
  const auto b = test::write_file(directory / "b.txt", "c");
  const auto link = directory / "link.txt", hard = directory / "hard.txt";
  std::filesystem::create_symlink(b, link);
  std::filesystem::create_hard_link(a, hard);
  const auto files = data_files(Paths{a, hard, link, b, a});
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].path, a);
  EXPECT_EQ(files[1].path, link);
}

TEST(DataFiles, RefuseWhatIsNoFileAndTwoForms) {
  const TemporaryDirectory directory;
  test::expect_message<UsageError>([&] { data_files(Paths{directory.path()}); },
                                   {directory.path(), "directory"});
  test::expect_message<UsageError>([&] { data_files(Paths{"/dev/null"}); },
                                   {"/dev/null", "regular file"});
  test::expect_message<IoError>([&] { data_files(Paths{directory / "no"}); },
                                {directory.path(), "No such file"});
  EXPECT_THROW(data_files({}), UsageError);
  const Paths mixed{test::write_file(directory / "a.jsonl", "{\"text\":\"a\"}\n"),
                    test::write_file(directory / "b.txt", "b")};
  test::expect_message<UsageError>([&] { data_form(data_files(mixed)); },
                                   {mixed[0].string(), "rows of JSON", "b.txt holds text"});
  for (const char* name : {"a.parquet", "a.jsonl.gz", "tokens.bin"}) {
    const auto binary = test::write_file(directory / name, std::string("\x1f\x8b\0\x07", 4));
    test::expect_message<FormatError>([&] { data_form(data_files(Paths{binary})); },
                                      {binary.string(), "zero bytes", "convert it"});
  }
}

TEST(HoldOut, TakesTheLastBytesFromTheNextLineOn) {
  const TemporaryDirectory directory;
  const auto a = test::write_file(directory / "a", "0123456\n0123456\n");
  const auto b = test::write_file(directory / "b", "0123456\n");
  auto files = data_files(Paths{a, b});
  // 9 of 24 bytes: b, and rows of a from the next one on, which is none.
  const auto held = hold_out(files, DataForm::kRows, 0.4);
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].end, 16u);
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held[0].path, b);
  auto more = data_files(Paths{a, b});
  const auto rest = hold_out(more, DataForm::kText, 0.68);  // 16 bytes
  EXPECT_EQ(more.at(0).end, 8u);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].begin, 8u);
  auto none = data_files(Paths{a, b});
  EXPECT_TRUE(hold_out(none, DataForm::kText, 0.0).empty());
  EXPECT_EQ(none.size(), 2u);
  for (const double fraction : {1.0, -0.1, std::nan("")}) {
    EXPECT_THROW(hold_out(none, DataForm::kText, fraction), UsageError);
  }
  // No line: between characters.
  auto umlauts = data_files(Paths{test::write_file(directory / "u", "\xc3\xa4\xc3\xb6\xc3\xbc")});
  EXPECT_EQ(hold_out(umlauts, DataForm::kText, 0.5).at(0).begin, 4u);
}

TEST(TextReader, MakesEachFileADocumentWhateverItsLength) {
  const TemporaryDirectory directory;
  std::string large;
  while (large.size() < (9u << 20)) large += "line " + std::to_string(large.size()) + "\n";
  const Paths paths{test::write_file(directory / "a", "ab"), test::write_file(directory / "e", ""),
                    test::write_file(directory / "l", large)};
  const auto tokenizer = make_byte_tokenizer();
  const auto reader = make_text_reader(data_files(paths), *tokenizer);
  EXPECT_EQ(reader->pieces(), 4);
  const auto documents = documents_of(*reader);
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(bytes_of(documents[0].ids), "ab|");
  EXPECT_EQ(bytes_of(documents[1].ids), large + "|");
  EXPECT_EQ(documents[1].trained.size(), documents[1].ids.size());
}

TEST(RowReader, FindsEveryRowOfEveryPieceOnce) {
  const TemporaryDirectory directory;
  std::string rows;
  std::set<std::string> expected;
  for (int i = 0; rows.size() < (3u << 20); ++i) {
    const std::string text =
        std::to_string(i) + std::string(static_cast<std::size_t>(i % 3000), 'x');
    rows += "{\"text\":\"" + text + "\"}\n";
    if (i % 7 == 0) rows += "\n";
    expected.insert(text + "|");
  }
  const std::string last = std::string(2u << 20, 'y');  // longer than a piece, without its end
  rows += "{\"text\":\"" + last + "\"}";
  expected.insert(last + "|");
  const auto files = data_files(Paths{test::write_file(directory / "rows.jsonl", rows)});
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(first_row_form(files), RowForm::kText);
  const auto reader = make_row_reader(files, RowForm::kText, *tokenizer, nullptr, {});
  std::set<std::string> found;
  for (const Document& document : documents_of(*reader)) {
    EXPECT_TRUE(found.insert(bytes_of(document.ids)).second);
  }
  EXPECT_EQ(found, expected);
}

TEST(RowReader, NamesTheLineOfARowThatIsWrong) {
  const TemporaryDirectory directory;
  const auto path = test::write_file(directory / "rows.jsonl",
                                     "{\"text\":\"a\"}\n\n{\"text\":\"b\"}\n{\"txt\":\"c\"}\n");
  const auto tokenizer = make_byte_tokenizer();
  const auto reader =
      make_row_reader(data_files(Paths{path}), RowForm::kText, *tokenizer, nullptr, {});
  test::expect_message<FormatError>([&] { documents_of(*reader); }, {path.string() + ":4", "text"});
  const auto blank = test::write_file(directory / "blank.jsonl", "\n  \n");
  test::expect_message<UsageError>([&] { first_row_form(data_files(Paths{blank})); },
                                   {blank.string(), "no row"});
  const auto array = test::write_file(directory / "array.json", "[{\"text\": \"a\"}]");
  test::expect_message<FormatError>([&] { first_row_form(data_files(Paths{array})); },
                                    {array.string() + ":1", "array", "jq -c"});
}

TEST(RowReader, TakesFilesOfOneForm) {
  const TemporaryDirectory directory;
  const auto text = test::write_file(directory / "text.jsonl", "\n{\"text\":\"a\"}\n");
  const auto both =
      test::write_file(directory / "both.jsonl", R"({"text":"a","prompt":"b","completion":"c"})");
  const auto answers = test::write_file(directory / "answers.jsonl",
                                        "\n"
                                        R"({"prompt":"b","completion":"c"})");
  EXPECT_EQ(first_row_form(data_files(Paths{text, both})), RowForm::kText);
  EXPECT_EQ(first_row_form(data_files(Paths{both, answers})), RowForm::kCompletion);
  test::expect_message<UsageError>(
      [&] {
        first_row_form(data_files(Paths{text, answers}));
      },
      {answers.string() + ":2", "{\"prompt\",\"completion\"}", text.string(), "{\"text\"}"});
}

std::string shard(std::uint32_t magic, std::uint32_t version, std::uint32_t tokens,
                  std::size_t width, const Ids& ids) {
  std::string bytes(1024, '\0');
  const std::uint32_t header[3]{magic, version, tokens};
  std::memcpy(bytes.data(), header, sizeof(header));
  for (const std::int32_t id : ids) bytes.append(reinterpret_cast<const char*>(&id), width);
  return bytes;
}

TEST(ShardReader, ReadsTheTokensOfLlmC) {
  const TemporaryDirectory directory;
  const Ids ids{50256, 11, 12, 50256, 13};
  const auto narrow = test::write_file(directory / "a.bin", shard(20240520, 1, 5, 2, ids));
  const auto wide = test::write_file(directory / "b.bin", shard(20240801, 7, 5, 4, ids));
  for (const auto& path : {narrow, wide}) {
    auto files = data_files(Paths{path});
    EXPECT_EQ(data_form(files), DataForm::kTokens);
    const auto documents = documents_of(*make_shard_reader(files, 50256, 50257));
    ASSERT_EQ(documents.size(), 2u);
    EXPECT_EQ(documents[0].ids, (Ids{50256, 11, 12}));
    EXPECT_EQ(documents[1].ids, (Ids{50256, 13}));
  }
  const auto text = test::write_file(directory / "c.bin", "only text");
  EXPECT_EQ(data_form(data_files(Paths{text})), DataForm::kText);
  const auto cut = test::write_file(directory / "d.bin", shard(20240520, 1, 6, 2, ids));
  test::expect_message<FormatError>(
      [&] { make_shard_reader(data_files(Paths{cut}), 50256, 50257); },
      {cut.string(), "1034 bytes", "1036"});
  const auto old = test::write_file(directory / "e.bin", shard(20240520, 2, 5, 2, ids));
  test::expect_message<FormatError>(
      [&] { make_shard_reader(data_files(Paths{old}), 50256, 50257); },
      {old.string(), "version 2"});
  test::expect_message<FormatError>(
      [&] { documents_of(*make_shard_reader(data_files(Paths{narrow}), 50256, 50256)); },
      {narrow.string(), "50256 at byte 1024", "vocabulary of 50256"});
}

/// Training and held-out data of files, in a cache of their own.
struct Opened {
  explicit Opened(const Paths& paths, DataOptions options = {}) {
    options.cache = cache.path();
    options.warn = [this](const std::string& line) {
      const std::lock_guard lock(mutex);
      told.push_back(line);
    };
    data = open_data(paths, {}, *tokenizer, options);
  }
  std::unique_ptr<Tokenizer> tokenizer = make_byte_tokenizer();
  TemporaryDirectory cache;
  std::vector<std::string> warnings() {
    const std::lock_guard lock(mutex);
    return told;
  }
  std::mutex mutex;
  std::vector<std::string> told;  // guarded by mutex: the thread that tokenises tells
  TrainingData data;              // last, since that thread ends with it
};

TEST(OpenData, CutsTextsEndToEndAndPacksAnswers) {
  const TemporaryDirectory directory;
  const Paths texts{test::write_file(directory / "a", "abc"),
                    test::write_file(directory / "b", "de")};
  Opened text(texts, {.sequence_length = 6, .held_out = 0.0});
  EXPECT_EQ(bytes_of(text.data.training->next({}).micro_batches[0].ids), "abc|de");
  EXPECT_FALSE(text.data.options.reset_documents);
  text.data.training->sequences();
  EXPECT_TRUE(text.warnings().empty());
  EXPECT_EQ(text.data.evaluation, nullptr);

  const Paths rows{test::write_file(directory / "r.jsonl",
                                    "{\"prompt\":\"ab\",\"completion\":\"c\"}\n"
                                    "{\"prompt\":\"d\",\"completion\":\"e\"}\n"
                                    "{\"prompt\":\"0123456789\",\"completion\":\"0\"}\n"
                                    "{\"prompt\":\"ABCDEF\",\"completion\":\"GHI\"}\n")};
  Opened packed(rows, {.sequence_length = 8, .held_out = 0.0});
  EXPECT_TRUE(packed.data.options.reset_documents);
  EXPECT_EQ(packed.data.training->sequences(), 3);
  EXPECT_EQ(bytes_of(ids_of(packed.data.training->tokens())),
            "01234567"
            "ABCDEFGH"
            "abc|de||"
            "|");
  ASSERT_EQ(packed.warnings().size(), 1u);
  EXPECT_EQ(packed.warnings()[0],
            "2 documents are longer than a sequence of 8 tokens and are cut at its end; nothing of "
            "1 of them is learned, whose prompts fill it: use a longer --sequence_length");
}

TEST(OpenData, TellsOnceThatLongRowsOfTextAreSplit) {
  const TemporaryDirectory directory;
  const Paths rows{test::write_file(directory / "r.jsonl",
                                    "{\"text\":\"0123456789\"}\n{\"text\":\"abcdef\"}\n"
                                    "{\"text\":\"01234567\"}\n")};
  Opened split(rows, {.sequence_length = 4, .held_out = 0.0});
  EXPECT_EQ(split.data.training->sequences(), 6);
  EXPECT_EQ(split.warnings(),
            (std::vector<std::string>{"documents of up to 11 tokens are longer than a sequence of "
                                      "4 and are split over several"}));
  Opened whole(rows, {.sequence_length = 11, .held_out = 0.0});
  EXPECT_EQ(whole.data.training->sequences(), 2);
  EXPECT_TRUE(whole.warnings().empty());
}

TEST(OpenData, KeepsWhatItTokenised) {
  const TemporaryDirectory directory;
  const TemporaryDirectory cache;
  const auto tokenizer = make_byte_tokenizer();
  const auto path = test::write_file(directory / "a.txt", std::string(100, 'a'));
  const auto open = [&](std::int64_t length = 10) {
    return open_data(Paths{path}, {}, *tokenizer,
                     {.sequence_length = length, .held_out = 0.0, .cache = cache.path()});
  };
  EXPECT_EQ(open().training->sequences(), 10);
  auto entries = list_cache(cache.path());
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_TRUE(entries[0].complete);
  EXPECT_FALSE(entries[0].in_use);
  EXPECT_NE(entries[0].description.find("a.txt"), std::string::npos);
  // Kept tokens are read, not made anew: put others in their place to see it.
  const auto tokens = entries[0].directory / "tokens.bin";
  test::write_file(tokens, std::string(std::filesystem::file_size(tokens), '\0'));
  EXPECT_EQ(open(20).training->next({}).micro_batches[0].ids[0], 0);
  EXPECT_EQ(list_cache(cache.path()).size(), 1u) << "the length of sequences does not matter";
  // Other content, other tokens.
  test::write_file(path, std::string(100, 'b'));
  EXPECT_EQ(open().training->next({}).micro_batches[0].ids[0], 'b');
  entries = list_cache(cache.path());
  ASSERT_EQ(entries.size(), 2u);
  // What is not complete is made anew.
  for (const CacheEntry& entry : entries) {
    std::filesystem::remove(entry.directory / "entry.json");
    test::write_file(entry.directory / "tokens.bin", "xx");
  }
  EXPECT_FALSE(list_cache(cache.path())[0].complete);
  EXPECT_EQ(open().training->next({}).micro_batches[0].ids[0], 'b');
  for (const CacheEntry& entry : list_cache(cache.path())) remove_entry(entry);
  EXPECT_TRUE(list_cache(cache.path()).empty());
}

TEST(OpenData, TellsWhatKeptTheRestFromBeingMade) {
  const TemporaryDirectory directory;
  const Paths rows{
      test::write_file(directory / "r.jsonl", "{\"text\":\"abcdef\"}\n{\"text\":1}\n")};
  test::expect_message<FormatError>(
      [&] { Opened(rows, {.sequence_length = 100, .held_out = 0.0}); },
      {rows[0].string() + ":2", "text"});
  test::write_file(directory / "file", "");
  const auto tokenizer = make_byte_tokenizer();
  test::expect_message<IoError>(
      [&] { open_data(rows, {}, *tokenizer, {.cache = directory / "file" / "below"}); },
      {(directory / "file").string(), "cannot make the directory", "--cache"});
}

TEST(TokenFiles, AreMadeByOneAndReadByOthers) {
  const TemporaryDirectory directory;
  const TemporaryDirectory cache;
  const auto tokenizer = make_byte_tokenizer();
  std::string text;
  while (text.size() < (10u << 20)) text += "some line of text\n";
  const TokenRecipe recipe{.files = data_files(Paths{test::write_file(directory / "a", text)})};
  auto first = open_tokens(recipe, *tokenizer, nullptr, cache.path(), {});
  auto second = open_tokens(recipe, *tokenizer, nullptr, cache.path(), {});
  const Ids ids = ids_of(*second);  // while the first is being made
  EXPECT_EQ(ids.size(), text.size() + 1);
  EXPECT_EQ(ids, ids_of(*first));
  EXPECT_EQ(list_cache(cache.path()).size(), 1u);
}

TEST(TokenFiles, AreTakenOverFromAWriterThatIsGone) {
  const TemporaryDirectory directory;
  const TemporaryDirectory cache;
  const auto tokenizer = make_byte_tokenizer();
  std::string text;
  while (text.size() < (40u << 20)) text += "some line of text\n";
  const TokenRecipe recipe{.files = data_files(Paths{test::write_file(directory / "a", text)})};
  auto first = open_tokens(recipe, *tokenizer, nullptr, cache.path(), {});
  auto second = open_tokens(recipe, *tokenizer, nullptr, cache.path(), {});
  first.reset();  // most likely in the middle
  EXPECT_EQ(ids_of(*second).size(), text.size() + 1);
}

}  // namespace
}  // namespace strata
