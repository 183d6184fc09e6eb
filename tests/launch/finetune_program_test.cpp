// `strata train` on rows, `eval`, `clean`, and models saved on the way.
#include <fmt/format.h>

#include <cmath>
#include <regex>

#include "tests/launch/train_program.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::read_file;
using test::Words;
using test::write_file;
using FineTuneProgram = test::TrainProgram;

TEST_F(FineTuneProgram, FineTunesOnRowsAndKeepsTheirTokens) {
  std::string rows;
  for (int i = 0; i < 60; ++i) {
    rows += fmt::format("{{\"prompt\": \"Number {}: \", \"completion\": \"the same words\"}}\n", i);
  }
  const fs::path file = write_file(directory_ / "rows.jsonl", rows);
  const auto loss_of = [&](const std::string& model) {
    const ProgramResult result =
        test::run_program({STRATA_PROGRAM, "eval", "--model", model, "--data", file.string(),
                           "--sequence_length", "64", "--dram", "256MiB", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return nlohmann::json::parse(result.output);
  };
  const auto before = loss_of(path("model"));
  EXPECT_EQ(before["predicted_tokens"], 60 * 15) << "the answers and their ends";
  EXPECT_FALSE(before.contains("quantized"));
  for (const int ranks : {1, 2}) {
    const ProgramResult result = test::run_program(on_ranks(
        ranks, train({"--data", file.string(), "--out", path("out" + std::to_string(ranks)),
                      "--swap", path("swap"), "--sequence_length", "64", "--max_steps", "30",
                      "--learning_rate", "1e-2"})));
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    const auto after = loss_of(path("out" + std::to_string(ranks)));
    EXPECT_LT(after["loss"], 0.5 * before["loss"].get<double>());
    EXPECT_NEAR(after["perplexity"], std::exp(after["loss"].get<double>()), 1e-6);
  }
  const auto rounded =
      test::run_program({STRATA_PROGRAM, "eval", "--model", path("out1"), "--data", file.string(),
                         "--sequence_length", "64", "--weights", "int4", "--json"});
  ASSERT_EQ(rounded.exit_code, 0) << rounded.errors;
  const auto both = nlohmann::json::parse(rounded.output);
  EXPECT_NEAR(both["loss"], loss_of(path("out1"))["loss"].get<double>(), 1e-3);
  EXPECT_EQ(both["quantized"]["weights"], "int4");
  EXPECT_NE(both["quantized"]["loss"], both["loss"]);
  EXPECT_NEAR(both["quantized"]["loss"], both["loss"].get<double>(), 0.5);
  const Words clean{STRATA_PROGRAM, "clean", "--json", "--remove"};
  const auto kept = nlohmann::json::parse(test::run_program(clean).output);
  ASSERT_EQ(kept.size(), 3u) << "to train on, held out, evaluated: " << kept;
  for (const auto& entry : kept) {
    EXPECT_TRUE(entry["removed"]);
    EXPECT_EQ(entry["state"], "complete");
    EXPECT_NE(entry["made_of"].get<std::string>().find("rows.jsonl"), std::string::npos);
  }
  EXPECT_TRUE(nlohmann::json::parse(test::run_program(clean).output).empty());
}

TEST_F(FineTuneProgram, TrainsAsADeepSpeedConfigurationSays) {
  write_file(directory_ / "ds.json", R"({
    "train_batch_size": 4, "steps_per_print": 2, "bf16": {"enabled": "auto"},
    "optimizer": {"type": "Lion", "params": {"lr": "auto", "betas": [0.9, 0.99],
                                             "weight_decay": 0.1}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": "auto", "warmup_num_steps": 4}},
    "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto",
      "offload_param": {"device": "nvme", "nvme_path": ")" +
                                         path("swap") + R"("},
      "offload_optimizer": {"device": "nvme", "nvme_path": ")" +
                                         path("swap") + R"("}},
    "aio": {"block_size": 65536, "queue_depth": 4},
    "strata": {"max_steps": 6}})");
  Words command = {STRATA_PROGRAM,
                   "train",
                   "--model",
                   path("model"),
                   "--data",
                   path("text.txt"),
                   "--out",
                   path("out"),
                   "--config",
                   path("ds.json"),
                   "--learning_rate",
                   "1e-2",
                   "--dram",
                   "256MiB",
                   "--sequence_length",
                   "32",
                   "--compute",
                   "fp32"};
  const ProgramResult result = test::run_program(on_ranks(2, command));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("ds.json as understood"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("1 micro-batch x 2 sequences"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("step 4/6 loss"), std::string::npos) << result.output;
  EXPECT_EQ(result.output.find("step 3/6 loss"), std::string::npos) << result.output;
  EXPECT_NE(result.errors.find("warning: " + path("ds.json") +
                               ": without effect here: zero_optimization.reduce_bucket_size"),
            std::string::npos)
      << result.errors;
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[1]["learning_rate"], 0.0);
  EXPECT_NEAR(lines[2]["learning_rate"].get<double>(), 1e-2 * std::log(2) / std::log(4), 1e-8);
  EXPECT_NEAR(lines[5]["learning_rate"].get<double>(), 1e-2, 1e-8);
  EXPECT_GT(lines[5]["swap_bytes_written"], 0);
  EXPECT_LT(lines[5]["loss"], lines[0]["loss"]);
  command.insert(command.end(), {"--overwrite", "--max_steps", "5"});
  const ProgramResult other = test::run_program(command);
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_NE(other.errors.find("strata.max_steps: 6 contradicts --max_steps 5"), std::string::npos)
      << other.errors;
}

TEST_F(FineTuneProgram, SavesOnTheWayAndKeepsAsManyAsAsked) {
  const ProgramResult result =
      test::run_program(train({"--save_steps", "2", "--save_total_limit", "2", "--max_steps", "7",
                               "--swap", path("swap"), "--residency", "none"}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(path("out"))) {
    if (entry.is_directory()) found.push_back(entry.path().filename());
  }
  std::ranges::sort(found);
  EXPECT_EQ(found, (Words{"checkpoint-4", "checkpoint-6"}));
  const ProgramResult inspected =
      test::run_program({STRATA_PROGRAM, "inspect", path("out/checkpoint-4")});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.errors;
  EXPECT_TRUE(fs::exists(path("out/checkpoint-4/tokenizer.json")));
  EXPECT_NE(read_file(directory_ / "out/checkpoint-4/model.safetensors"),
            read_file(directory_ / "out/checkpoint-6/model.safetensors"));
}

TEST_F(FineTuneProgram, EndsWithTheBestModelWhenAsked) {
  expect_refused(train({"--load_best_model_at_end"}), {"--eval_steps"});
  // A learning rate that destroys what the first steps learned.
  const ProgramResult result = test::run_program(
      train({"--eval_steps", "1", "--load_best_model_at_end", "--max_steps", "6", "--learning_rate",
             "3", "--lr_scheduler_type", "linear", "--warmup_steps", "6"}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const std::regex line("step (\\d+): loss ([0-9.]+)");
  std::pair<double, std::string> best{1e9, ""};
  for (std::sregex_iterator i(result.output.begin(), result.output.end(), line), end; i != end;
       ++i) {
    best = std::min(best, {std::stod((*i)[2]), (*i)[1]});
  }
  ASSERT_NE(best.second, "6") << result.output;
  EXPECT_NE(result.output.find("saved the best model, of step " + best.second), std::string::npos)
      << result.output;
  EXPECT_EQ(read_file(directory_ / "out/model.safetensors"),
            read_file(directory_ / "out" / ("checkpoint-" + best.second) / "model.safetensors"));
  const auto checkpoints = std::ranges::count_if(fs::directory_iterator(path("out")),
                                                 [](const auto& e) { return e.is_directory(); });
  EXPECT_EQ(checkpoints, 1);
}

TEST_F(FineTuneProgram, RefusesRowsThatAreNotWhatTheFirstOneIs) {
  const fs::path rows = write_file(
      directory_ / "rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"c\"}\n");
  expect_refused(train({"--data", rows.string()}), {rows.string() + ":2", "prompt"});
  const fs::path chat = write_file(directory_ / "chat.jsonl",
                                   "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
  expect_refused(train({"--data", chat.string()}), {"chat_template"});
  expect_refused(train({"--data", chat.string(), "--chat_template", "chatlm"}),
                 {"--chat_template", "did you mean chatml?"});
}

}  // namespace
}  // namespace strata
