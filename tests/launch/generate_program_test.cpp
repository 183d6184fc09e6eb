#include <gtest/gtest.h>

#include <map>

#include <nlohmann/json.hpp>

#include "tests/launch/byte_model_program.h"

namespace strata {
namespace {

using nlohmann::json;

/// `strata generate` as its users run it.
class GenerateProgram : public test::ByteModelProgram {
 protected:
  test::ProgramResult generate(const std::vector<std::string>& arguments, int ranks = 1) const {
    std::vector<std::string> command{"generate", "--model", path("model"), "--compute",
                                     "fp32",     "--dram",  "1GiB"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return run(command, ranks);
  }

  void write_rows(int count) const {
    std::string rows;
    for (int i = 0; i < count; ++i) {
      std::string id("r");
      id += std::to_string(i);
      const json row{{"id", id},
                     {"prompt", std::string(static_cast<std::size_t>(1 + i * 7 % 40), 'a')},
                     {"max_tokens", 1 + i * 5 % 30}};
      rows += row.dump() + "\n";
    }
    test::write_file(directory_ / "rows.jsonl", rows);
  }
};

TEST_F(GenerateProgram, WhatIsGeneratedDoesNotDependOnRanksOrCompany) {
  write_rows(30);
  const std::vector<std::string> sampled = {"--prompts",        path("rows.jsonl"),
                                            "--max_new_tokens", "9",
                                            "--temperature",    "1",
                                            "--seed",           "4",
                                            "--top_k",          "0"};
  const auto run = [&](const char* out, int ranks, const char* sequences) {
    std::vector<std::string> arguments = sampled;
    for (const std::string& word : {std::string("--out"), path(out), std::string("--max_sequences"),
                                    std::string(sequences)}) {
      arguments.push_back(word);
    }
    const auto done = generate(arguments, ranks);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    EXPECT_EQ(done.output, "");
    std::map<std::string, json> ids;
    for (const auto& [id, result] : results(out)) ids[id] = result["token_ids"];
    return ids;
  };
  const std::map<std::string, json> alone = run("one", 1, "1");
  ASSERT_EQ(alone.size(), 30u);
  EXPECT_EQ(alone.at("r5").size(), 26u);
  for (const auto& [id, ids] : alone) {
    for (const json& token : ids) EXPECT_LT(token, 257) << "no token of the tokenizer";
  }
  EXPECT_EQ(run("many", 1, "16"), alone);
  EXPECT_EQ(run("two", 2, "8"), alone);
}

TEST_F(GenerateProgram, TextsInFp32HaveTheSameBitsOnAnyNumberOfRanks) {
  write_rows(12);
  const auto run = [&](const char* out, int ranks, const char* batch) {
    const auto done = generate({"--prompts", path("rows.jsonl"), "--max_new_tokens", "8",
                                "--logprobs", "--greedy", "--batch", batch, "--out", path(out)},
                               ranks);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    std::map<std::string, json> all;
    for (const auto& [id, result] : results(out)) all[id] = result["logprobs"];
    return all;
  };
  const std::map<std::string, json> alone = run("alone", 1, "1");
  ASSERT_EQ(alone.size(), 12u);
  EXPECT_FALSE(alone.begin()->second.is_null());
  EXPECT_EQ(run("many", 1, "12"), alone);
  EXPECT_EQ(run("two", 2, "4"), alone);
}

TEST_F(GenerateProgram, SpeculatesWithoutChangingWhatIsGenerated) {
  write_rows(12);
  const auto run = [&](const char* out, const std::vector<std::string>& more, int ranks) {
    std::vector<std::string> arguments{"--prompts", path("rows.jsonl"), "--max_new_tokens",
                                       "20",        "--greedy",         "--batch_invariant",
                                       "--out",     path(out)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto done = generate(arguments, ranks);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    EXPECT_EQ(done.errors.find("accepted") != std::string::npos, !more.empty()) << done.errors;
    std::map<std::string, json> ids;
    for (const auto& [id, result] : results(out)) ids[id] = result["token_ids"];
    return ids;
  };
  const std::map<std::string, json> plain = run("plain", {}, 1);
  ASSERT_EQ(plain.size(), 12u);
  EXPECT_EQ(run("fast", {"--speculate", "4", "--batch", "1"}, 1), plain);
  EXPECT_EQ(run("two", {"--speculate", "4"}, 2), plain);
}

TEST_F(GenerateProgram, HasFewerTextsInFlightForLatency) {
  write_rows(100);
  const auto texts_of_a_pass = [&](const char* out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"--prompts", path("rows.jsonl"), "--max_new_tokens", "9",
                                       "--out",     path(out)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto done = generate(arguments);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    EXPECT_EQ(results(out).size(), 100u);
    const std::string before = "a token for each of ";
    const std::size_t found = done.errors.find(before);
    EXPECT_NE(found, std::string::npos) << done.errors;
    return found == std::string::npos ? 0 : std::stoi(done.errors.substr(found + before.size()));
  };
  EXPECT_EQ(texts_of_a_pass("auto", {}), 100);
  EXPECT_EQ(texts_of_a_pass("capped", {"--batch", "7"}), 7);
  // Everything is in memory, whose rates are those of any machine: a few rows are hidden.
  EXPECT_LT(texts_of_a_pass("latency", {"--objective", "latency"}), 100);
}

TEST_F(GenerateProgram, GoesOnWhereItWasInterrupted) {
  write_rows(10);
  const std::vector<std::string> arguments = {
      "--prompts", path("rows.jsonl"), "--max_new_tokens", "3", "--out", path("out")};
  ASSERT_EQ(generate(arguments).exit_code, 0);
  const auto whole = results("out");
  const auto again = generate(arguments);
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_NE(again.errors.find("--resume"), std::string::npos) << again.errors;

  const std::string text = test::read_file(directory_ / "out");
  test::write_file(directory_ / "out", text.substr(0, text.size() / 2));
  std::vector<std::string> resumed = arguments;
  resumed.emplace_back("--resume");
  ASSERT_EQ(generate(resumed, 2).exit_code, 0);
  const auto both = results("out");
  ASSERT_EQ(both.size(), whole.size());
  for (const auto& [id, result] : whole) {
    EXPECT_EQ(both.at(id)["token_ids"], result["token_ids"]) << id;
  }

  write_rows(3);
  const auto fewer = generate(resumed);
  EXPECT_EQ(fewer.exit_code, 2);
  EXPECT_NE(fewer.errors.find("7 of the 10 results"), std::string::npos) << fewer.errors;
}

TEST_F(GenerateProgram, BadPromptsAreErrorsOfTheirRowsOnly) {
  test::write_file(directory_ / "rows.jsonl",
                   "{\"id\":\"good\",\"prompt\":\"x\",\"max_tokens\":4}\n"
                   "{\"id\":\"empty\",\"prompt\":\"\"}\n"
                   "{\"id\":\"outside\",\"prompt\":[1,300]}\n"
                   "{\"id\":\"long\",\"prompt\":\"" +
                       std::string(200, 'x') +
                       "\"}\n"
                       "{\"id\":\"chat\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n"
                       "{\"custom_id\":\"batch\",\"method\":\"POST\",\"url\":\"/v1/completions\","
                       "\"body\":{\"prompt\":\"x\",\"max_tokens\":4}}\n");
  const auto done = generate({"--prompts", path("rows.jsonl"), "--max_new_tokens", "5", "--out",
                              path("out"), "--chat_template", "plain"});
  ASSERT_EQ(done.exit_code, 0) << done.errors;
  const auto all = results("out");
  ASSERT_EQ(all.size(), 6u);
  for (const char* id : {"empty", "outside", "long"}) {
    EXPECT_EQ(all.at(id)["finish_reason"], "error") << id;
    EXPECT_FALSE(all.at(id)["error"].get<std::string>().empty()) << id;
  }
  EXPECT_EQ(all.at("good")["output_tokens"], 4);
  EXPECT_EQ(all.at("chat")["output_tokens"], 5);
  EXPECT_EQ(all.at("batch")["response"]["body"]["choices"][0]["token_ids"],
            all.at("good")["token_ids"]);
}

TEST_F(GenerateProgram, AFileOfBadPromptsOnlyIsOneOfErrors) {
  test::write_file(directory_ / "rows.jsonl", "{\"id\":\"long\",\"prompt\":\"" +
                                                  std::string(200, 'x') +
                                                  "\"}\n{\"id\":\"empty\",\"prompt\":\"\"}\n");
  const auto done =
      generate({"--prompts", path("rows.jsonl"), "--max_new_tokens", "5", "--out", path("out")});
  ASSERT_EQ(done.exit_code, 0) << done.errors;
  const auto all = results("out");
  ASSERT_EQ(all.size(), 2u);
  for (const auto& [id, row] : all) EXPECT_EQ(row["finish_reason"], "error") << id;
}

TEST_F(GenerateProgram, MistakesAreKnownBeforeWork) {
  test::write_file(directory_ / "rows.jsonl", "{\"prompt\":\"x\"}\n{\"promt\":\"x\"}\n");
  const std::vector<std::string> rows = {"--prompts", path("rows.jsonl"), "--out", path("out")};
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.end(), rows.begin(), rows.end());
    return generate(more);
  };
  const auto unknown = run({"--max_new_tokens", "3"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_NE(unknown.errors.find("rows.jsonl:2: \"promt\" is not known; did you mean \"prompt\"?"),
            std::string::npos)
      << unknown.errors;
  EXPECT_EQ(test::read_file(directory_ / "out"), "");
  const auto endless = run({"--skip_bad"});
  EXPECT_EQ(endless.exit_code, 2);
  EXPECT_NE(endless.errors.find("--max_new_tokens"), std::string::npos) << endless.errors;
  const auto skipped = run({"--skip_bad", "--max_new_tokens", "3"});
  EXPECT_EQ(skipped.exit_code, 0);
  EXPECT_NE(skipped.errors.find("1 bad row is passed over"), std::string::npos) << skipped.errors;
  EXPECT_EQ(results("out").size(), 1u);
}

TEST_F(GenerateProgram, ATextAloneIsAllThatIsOnStandardOutput) {
  const auto shown = generate({"--prompt", "Once", "--max_new_tokens", "8"});
  ASSERT_EQ(shown.exit_code, 0) << shown.errors;
  ASSERT_EQ(generate({"--prompt", "Once", "--max_new_tokens", "8", "--out", path("out")}).exit_code,
            0);
  const json result = results("out").at("0");
  EXPECT_EQ(result["output_tokens"], 8);
  std::string bytes;
  for (const int id : result["token_ids"]) bytes += static_cast<char>(id);
  EXPECT_EQ(shown.output, bytes + "\n");
  EXPECT_NE(shown.errors.find("sampling: greedy"), std::string::npos) << shown.errors;
  const auto empty = generate({"--prompt", "", "--max_new_tokens", "8"});
  EXPECT_EQ(empty.exit_code, 2);
  EXPECT_NE(empty.errors.find("--prompt: has 0 tokens"), std::string::npos) << empty.errors;
}

TEST_F(GenerateProgram, WeightsAreQuantizedOnce) {
  write_rows(6);
  const auto run = [&](const char* out, const char* weights, int ranks) {
    const auto done =
        generate({"--prompts", path("rows.jsonl"), "--max_new_tokens", "9", "--logprobs", "--out",
                  path(out), "--weights", weights, "--cache", path("cache"), "--batch_invariant"},
                 ranks);
    EXPECT_EQ(done.exit_code, 0) << done.errors;
    return done.errors;
  };
  const auto log_probabilities = [this](const char* out) {
    std::map<std::string, json> all;
    for (const auto& [id, result] : results(out)) all[id] = result["logprobs"];
    return all;
  };
  EXPECT_EQ(run("as_it_is", "bf16", 1).find("quantising"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path("cache")));
  const std::string made = run("first", "int4", 2);
  EXPECT_NE(made.find("quantising to int4: "), std::string::npos) << made;
  EXPECT_NE(made.find("into " + path("cache")), std::string::npos) << made;
  EXPECT_EQ(run("second", "int4", 1).find("quantising"), std::string::npos);
  EXPECT_NE(run("eight", "int8", 1).find("quantising to int8: "), std::string::npos);
  for (const char* out : {"first", "second", "eight"}) {
    EXPECT_EQ(results(out).size(), 6u);
    EXPECT_FALSE(log_probabilities(out).begin()->second.is_null());
  }
  EXPECT_EQ(log_probabilities("first"), log_probabilities("second"));
  EXPECT_NE(log_probabilities("first"), log_probabilities("as_it_is"));
  EXPECT_NE(log_probabilities("first"), log_probabilities("eight"));

  const auto cleaned =
      test::run_program({STRATA_PROGRAM, "clean", "--cache", path("cache"), "--remove", "--json"});
  const json entries = json::parse(cleaned.output);
  ASSERT_EQ(entries.size(), 2u) << cleaned.output;
  for (const json& entry : entries) {
    EXPECT_EQ(entry["state"], "complete");
    EXPECT_EQ(entry["removed"], true);
    EXPECT_NE(entry["made_of"].get<std::string>().find(path("model")), std::string::npos);
  }
  EXPECT_NE(run("again", "int4", 1).find("quantising"), std::string::npos);
}

}  // namespace
}  // namespace strata
