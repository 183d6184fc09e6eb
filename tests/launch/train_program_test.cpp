// `strata train` as its users meet it: whole processes, alone and under mpirun.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <regex>

#include <nlohmann/json.hpp>

#include "checkpoint/pretrained.h"
#include "core/model/config.h"
#include "tests/support/run_program.h"
#include "tests/support/xml.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::read_file;
using test::write_file;
using Words = std::vector<std::string>;

class TrainProgram : public testing::Test {
 protected:
  void SetUp() override {
    setenv("XDG_CACHE_HOME", path("cache").c_str(), 1);
    ModelConfig config = preset("llama-26m");
    config.hidden = 32;
    config.layers = 2;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_size = 8;
    config.intermediate = 64;
    config.max_positions = 64;
    write_file(directory_ / "shape.json", to_json(config));
    const ProgramResult made = test::run_program(
        {STRATA_PROGRAM, "init", "--config", path("shape.json"), "--out", path("model")});
    ASSERT_EQ(made.exit_code, 0) << made.errors;
    std::string text;
    for (int i = 0; i < 400; ++i) text += "the quick brown fox jumps over the lazy dog. ";
    write_file(directory_ / "text.txt", text);
    fs::create_directory(directory_ / "swap");
  }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  /// The command with `more` flags and values, which replace those of the same name.
  Words train(const Words& more) const {
    std::vector<std::pair<std::string, std::string>> flags = {
        {"--model", path("model")}, {"--data", path("text.txt")},
        {"--out", path("out")},     {"--sequence_length", "32"},
        {"--max_steps", "4"},       {"--per_device_train_batch_size", "2"},
        {"--dram", "256MiB"}};
    std::erase_if(flags,
                  [&](const auto& flag) { return std::ranges::count(more, flag.first) > 0; });
    Words words = {STRATA_PROGRAM, "train"};
    for (const auto& [flag, value] : flags) words.insert(words.end(), {flag, value});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static Words on_ranks(int ranks, const Words& program, const Words& launcher_flags = {}) {
    Words words = {"env",
                   "OMPI_ALLOW_RUN_AS_ROOT=1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                   "OMPI_MCA_rmaps_base_oversubscribe=1",
                   STRATA_MPIEXEC,
                   "-n",
                   std::to_string(ranks)};
    words.insert(words.end(), launcher_flags.begin(), launcher_flags.end());
    words.insert(words.end(), program.begin(), program.end());
    return words;
  }

  /// Exit code not 0, one message that names all `parts`, within two seconds, and nothing left
  /// behind.
  void expect_refused(const Words& command, const Words& parts) {
    const auto begin = std::chrono::steady_clock::now();
    const ProgramResult result = test::run_program(command);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_NE(result.exit_code, 0) << result.output;
    for (const std::string& part : parts) {
      EXPECT_NE(result.errors.find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << result.errors;
    }
    EXPECT_FALSE(fs::exists(directory_ / "out")) << result.errors;
    EXPECT_TRUE(fs::is_empty(directory_ / "swap"));
  }

  /// Rows of metrics.jsonl that have `key`: "loss" for steps, "eval_loss" for evaluations.
  std::vector<nlohmann::json> metrics(const char* key = "loss") const {
    std::vector<nlohmann::json> lines;
    std::ifstream file(path("out/metrics.jsonl"));
    for (std::string line; std::getline(file, line);) {
      lines.push_back(nlohmann::json::parse(line));
      if (!lines.back().contains(key)) lines.pop_back();
    }
    return lines;
  }

  /// TensorBoard's, in the output directory.
  int event_files() const {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(directory_ / "out")) {
      files += entry.path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
    }
    return files;
  }

  test::TemporaryDirectory directory_;
};

TEST_F(TrainProgram, TrainsAsADeepSpeedConfigurationSays) {
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

TEST_F(TrainProgram, TrainsEvaluatesAndSavesAModelThatTrainsOn) {
  const ProgramResult result = test::run_program(
      train({"--swap", path("swap"), "--residency", "none", "--learning-rate", "1e-2", "--trace",
             "--eval-steps", "2", "--max_steps", "20", "--report"}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("step 20/20 loss"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("bigram"), std::string::npos);
  EXPECT_NE(result.output.find("swap of all steps: "), std::string::npos);
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 20u);
  EXPECT_LT(lines.back()["loss"], lines.front()["loss"]);
  EXPECT_GT(lines.back()["swap_bytes_read"], 0);
  const auto evaluations = metrics("eval_loss");
  ASSERT_EQ(evaluations.size(), 10u);
  EXPECT_EQ(evaluations.front()["step"], 2);
  EXPECT_EQ(evaluations.back()["step"], 20);
  EXPECT_GT(evaluations.back()["eval_tokens"], 0);
  EXPECT_LT(evaluations.back()["eval_loss"], evaluations.front()["eval_loss"]);
  EXPECT_EQ(event_files(), 1);
  const test::XmlElement report = test::parse_xml(read_file(directory_ / "out/report.html"));
  EXPECT_NE(report.all("pre").at(0)->text.find("bytes of a rank"), std::string::npos);
  EXPECT_TRUE(
      nlohmann::json::parse(read_file(directory_ / "out/trace.json")).contains("traceEvents"));
  EXPECT_TRUE(fs::is_empty(directory_ / "swap"));
  const ProgramResult again = test::run_program(
      {STRATA_PROGRAM, "train", "--model", path("out"), "--data", path("text.txt"), "--out",
       path("more"), "--sequence_length", "32", "--max_steps", "1", "--dram", "256MiB"});
  EXPECT_EQ(again.exit_code, 0) << again.errors;
}

TEST_F(TrainProgram, FineTunesOnRowsAndKeepsTheirTokens) {
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

TEST_F(TrainProgram, SavesOnTheWayAndKeepsAsManyAsAsked) {
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

TEST_F(TrainProgram, EndsWithTheBestModelWhenAsked) {
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
  expect_refused(train({"--load_best_model_at_end", "--out", path("other")}), {"--eval_steps"});
}

TEST_F(TrainProgram, RefusesRowsThatAreNotWhatTheFirstOneIs) {
  const fs::path rows = write_file(
      directory_ / "rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"c\"}\n");
  expect_refused(train({"--data", rows.string()}), {rows.string() + ":2", "prompt"});
  const fs::path chat = write_file(directory_ / "chat.jsonl",
                                   "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
  expect_refused(train({"--data", chat.string()}), {"chat_template"});
  expect_refused(train({"--data", chat.string(), "--chat_template", "chatlm"}),
                 {"--chat_template", "did you mean chatml?"});
}

TEST_F(TrainProgram, PlacementAndEngineDoNotChangeTheSavedModel) {
  const auto saved = [&](const Words& more) {
    const ProgramResult result = test::run_program(train(more));
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    const std::string bytes = read_file(directory_ / "out/model.safetensors");
    fs::remove_all(directory_ / "out");
    return bytes;
  };
  const std::string want = saved({});
  EXPECT_EQ(saved({"--swap", path("swap"), "--residency", "none"}), want);
  EXPECT_EQ(saved({"--swap", path("swap"), "--place", "gradients=swap", "--activations", "swap"}),
            want);
  EXPECT_EQ(saved({"--swap", path("swap"), "--residency", "none", "--io-engine", "threads"}), want);
  EXPECT_EQ(saved({"--swap", path("swap") + "," + path("model"), "--residency", "none"}), want);
}

TEST_F(TrainProgram, TrainsTheParametersThatPatternsName) {
  expect_refused(train({"--freeze", "*.atn.*"}), {"--freeze", "*.atn.*", "self_attn"});
  expect_refused(train({"--freeze", "*"}), {"nothing is left to train"});
  const Words norms = train({"--train", "*norm*", "--swap", path("swap"), "--residency", "none"});
  const ProgramResult result = test::run_program(on_ranks(2, norms));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("of them trained"), std::string::npos) << result.output;
  const PretrainedReader before(path("model")), after(path("out"));
  for (const MappedParameter& mapped : before.parameters()) {
    const std::int64_t numel = mapped.shape.numel();
    std::vector<float> start(static_cast<std::size_t>(numel)), end = start;
    before.read(mapped.name, 0, numel, start.data());
    after.read(mapped.name, 0, numel, end.data());
    const bool norm = mapped.name.find("norm") != std::string::npos;
    EXPECT_EQ(start != end, norm) << mapped.name;
  }
}

TEST_F(TrainProgram, TwoRanksUnderMpirunTrainThroughSwap) {
  const ProgramResult result = test::run_program(
      on_ranks(2, train({"--swap", path("swap"), "--residency", "none", "--report_to", "none"})));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(event_files(), 0);
  EXPECT_EQ(metrics().size(), 4u);
  EXPECT_EQ(metrics().back()["tokens"], 2 * 2 * 32);
}

TEST_F(TrainProgram, RunsOnTheHostsOfAFile) {
  std::ofstream(path("hosts")) << "localhost slots=2\n";
  const ProgramResult result = test::run_program(
      on_ranks(2, train({"--swap", path("swap")}), {"--hostfile", path("hosts")}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(metrics().back()["tokens"], 2 * 2 * 32);
}

TEST_F(TrainProgram, TrainsOnSequencesLongerThanRotaryPositionsWereMadeFor) {
  const ProgramResult result =
      test::run_program(train({"--sequence_length", "96", "--max_steps", "1"}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(metrics().back()["tokens"], 2 * 96);
}

TEST_F(TrainProgram, SaysWhatIsWrongWithTheFlags) {
  expect_refused(train({"--max_stepz", "3"}), {"--max_stepz", "--max_steps"});
  expect_refused(train({"--learning_rate", "fast"}), {"--learning_rate", "fast"});
  expect_refused(train({"--data", path("nothing.txt")}), {"nothing.txt"});
  expect_refused(train({"--train_batch_size", "7"}), {"--train_batch_size", "7", "= 2"});
  expect_refused(train({"--update", "fused"}), {"--update fused", "--clip"});
  expect_refused(train({"--swap", path("swap"), "--dram", "100KiB"}), {"--dram", "use --dram"});
  expect_refused(train({"--swap", path("no-such-directory")}), {"no-such-directory"});
  expect_refused(train({"--swap", path("text.txt")}), {"text.txt"});
  fs::create_directory(directory_ / "full");
  write_file(directory_ / "full/precious", "data");
  expect_refused(train({"--out", path("full")}), {"full", "--overwrite"});
  EXPECT_EQ(read_file(directory_ / "full/precious"), "data");
}

TEST_F(TrainProgram, SaysWhatIsWrongWithTheFiles) {
  write_file(directory_ / "empty.txt", "");
  expect_refused(train({"--data", path("empty.txt")}), {"no text"});
  write_file(directory_ / "short.txt", "hello");
  expect_refused(train({"--data", path("short.txt")}), {"sequence"});
  const std::string weights = read_file(directory_ / "model/model.safetensors");
  write_file(directory_ / "model/model.safetensors", weights.substr(0, weights.size() - 100));
  expect_refused(train({}), {"model.safetensors"});
  write_file(directory_ / "model/model.safetensors", weights);
  const std::string config = read_file(directory_ / "model/config.json");
  const auto with = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json changed = nlohmann::json::parse(config);
    changed[key] = value;
    write_file(directory_ / "model/config.json", changed.dump());
  };
  with("model_type", "mamba");
  expect_refused(train({}), {"config.json", "mamba", "llama"});
  with("hidden_act", "swish9");
  expect_refused(train({}), {"config.json", "swish9"});
  with("num_hidden_layers", 3);
  expect_refused(train({}), {"layers.2"});
  with("num_hidden_layers", 1);
  expect_refused(train({}), {"layers.1"});
  with("intermediate_size", 48);
  expect_refused(train({}), {"model.safetensors", "48"});
  with("vocab_size", 100);
  expect_refused(train({}), {"100"});
  fs::remove(directory_ / "model/config.json");
  expect_refused(train({}), {"config.json"});
}

TEST_F(TrainProgram, AMistakeOnAllRanksIsToldOnce) {
  const ProgramResult result =
      test::run_program(on_ranks(2, train({"--data", path("nothing.txt")})));
  EXPECT_NE(result.exit_code, 0);
  const std::size_t first = result.errors.find("nothing.txt");
  ASSERT_NE(first, std::string::npos) << result.errors;
  EXPECT_EQ(result.errors.find("nothing.txt", first + 1), std::string::npos) << result.errors;
}

TEST_F(TrainProgram, ASignalFinishesTheStepAndSaves) {
  Words command = train({"--max_steps", "100000", "--no_progress"});
  std::string line;
  for (const std::string& word : command) line += "'" + word + "' ";
  const ProgramResult result =
      test::run_program({"sh", "-c",
                         line + " & child=$!; until [ -s " + path("out/metrics.jsonl") +
                             " ]; do sleep 0.1; done; kill -USR1 $child; wait $child"});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("on request"), std::string::npos) << result.output;
  EXPECT_TRUE(fs::exists(directory_ / "out/model.safetensors"));
}

}  // namespace
}  // namespace strata
