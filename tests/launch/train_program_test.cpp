// `strata train` as its users meet it: whole processes, alone and under mpirun.
#include "tests/launch/train_program.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "checkpoint/pretrained.h"
#include "tests/support/xml.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::read_file;
using test::TrainProgram;
using test::Words;
using test::write_file;

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

TEST_F(TrainProgram, TrainsInFp16AndTellsTheScaleOfTheLoss) {
  expect_refused(train({"--compute", "fp16", "--update", "fused", "--clip", "none"}),
                 {"--update fused", "use --update lazy"});
  expect_refused(train({"--compute", "fp16", "--min_loss_scale", "131072"}), {"--min_loss_scale"});
  const ProgramResult result = test::run_program(on_ranks(
      2,
      train({"--compute", "fp16", "--swap", path("swap"), "--residency", "none", "--learning_rate",
             "1e-2", "--max_steps", "12", "--initial_scale_power", "24", "--hysteresis", "1"})));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 12u);
  EXPECT_EQ(lines.front()["loss_scale"], 16777216.0);
  EXPECT_TRUE(lines.front()["skipped"]);
  EXPECT_FALSE(lines.back()["skipped"]);
  EXPECT_LT(lines.back()["loss_scale"], 16777216.0);
  EXPECT_LT(lines.back()["loss"], lines.front()["loss"]);
  EXPECT_GE(lines.back()["skipped_steps"], 1);
  EXPECT_NE(result.output.find(" scale 16777216 "), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("skipped: gradients were not finite (1 so far)"), std::string::npos)
      << result.output;
  const ProgramResult evaluated =
      test::run_program({STRATA_PROGRAM, "eval", "--model", path("out"), "--data", path("text.txt"),
                         "--sequence_length", "32", "--compute", "fp16", "--dram", "256MiB"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.errors;
  EXPECT_NE(evaluated.output.find("loss "), std::string::npos);
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

TEST_F(TrainProgram, DropsWhereTheConfigAsksForItAndTheUserSaysSo) {
  std::string config = read_file(directory_ / "model/config.json");
  const std::string none = "\"attention_dropout\": 0.0";
  ASSERT_NE(config.find(none), std::string::npos) << config;
  write_file(directory_ / "model/config.json",
             config.replace(config.find(none), none.size(), "\"attention_dropout\": 0.5"));
  const auto run = [&](const Words& more) {
    fs::remove_all(directory_ / "out");
    const ProgramResult result = test::run_program(train(more));
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return std::pair(result.output, metrics().front()["loss"].get<double>());
  };
  const auto off = run({});
  EXPECT_NE(off.first.find("the config's dropout (0.5 of attention probabilities) is off; "
                           "--dropout from-config turns it on"),
            std::string::npos)
      << off.first;
  const auto on = run({"--dropout", "from-config"});
  EXPECT_NE(on.first.find("dropout: 0.5 of attention probabilities"), std::string::npos);
  EXPECT_NE(on.second, off.second);
  EXPECT_EQ(run({"--dropout", "from-config"}).second, on.second);
  EXPECT_EQ(parse_config(read_file(directory_ / "out/config.json"), "out").dropout.attention, 0.5f);
  fs::remove_all(directory_ / "out");
  expect_refused(train({"--dropout", "0.1"}), {"dropout of 0.1", "llama", "from-config"});
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
  EXPECT_NE(result.errors.find("96 tokens are longer than the 64 positions"), std::string::npos)
      << result.errors;
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

TEST_F(TrainProgram, SaysWhatIsWrongWithTheDataBeforeTheFirstStep) {
  std::string rows;
  for (int i = 0; i < 400; ++i) rows += "{\"text\": \"the quick brown fox jumps\"}\n";
  write_file(directory_ / "last.jsonl", rows + "{\"txt\": \"a\"}\n");
  expect_refused(train({"--data", path("last.jsonl")}), {"last.jsonl:401", "\"text\" is missing"});
  write_file(directory_ / "answers.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  write_file(directory_ / "rows.jsonl", rows);
  expect_refused(train({"--data", path("rows.jsonl"), path("answers.jsonl")}),
                 {"answers.jsonl:1", "rows.jsonl", "one form"});
  std::string shard(1024, '\0');
  const std::uint32_t header[3] = {20240520, 1, 1000};
  std::memcpy(shard.data(), header, sizeof(header));
  for (int i = 0; i < 1000; ++i) shard += i == 900 ? "\xff\xff" : std::string("a\0", 2);
  write_file(directory_ / "tokens.bin", shard);
  expect_refused(train({"--data", path("tokens.bin")}), {"tokens.bin", "65535 at byte 2824"});
}

TEST_F(TrainProgram, SaysThatNothingIsLearnedOfPromptsThatFillTheSequence) {
  std::string rows;
  for (int i = 0; i < 50; ++i) {
    rows += "{\"prompt\": \"" + std::string(40, 'q') + "\", \"completion\": \"a\"}\n";
  }
  write_file(directory_ / "long.jsonl", rows);
  const ProgramResult result = test::run_program(
      train({"--data", path("long.jsonl"), "--max_steps", "1", "--eval_fraction", "0"}));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.errors.find("nothing of 50 of them is learned"), std::string::npos)
      << result.errors;
  EXPECT_NE(result.output.find("skipped: no label counts"), std::string::npos) << result.output;
}

TEST_F(TrainProgram, KeepsTheSettingsOfAConfigurationAndSendsEventsWhereItSays) {
  write_file(
      directory_ / "ds.json",
      nlohmann::json{{"train_micro_batch_size_per_gpu", 2},
                     {"optimizer", {{"type", "AdamW"}, {"params", {{"lr", 1e-3}}}}},
                     {"tensorboard",
                      {{"enabled", true}, {"output_path", path("curves")}, {"job_name", "first"}}}}
          .dump());
  const Words command = train({"--config", path("ds.json"), "--max_steps", "2"});
  const ProgramResult result = test::run_program(command);
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(event_files(), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(path("curves/first")), {}), 1);
  std::map<std::string, std::string> settings;
  const auto run = nlohmann::json::parse(read_file(directory_ / "out/run.json"));
  for (const auto& setting : run.at("settings")) {
    settings[setting[0]] = setting[1];
  }
  EXPECT_EQ(settings["--learning_rate"], "0.001");
  EXPECT_EQ(settings["--compute"], "fp32");
  EXPECT_EQ(settings["--train_batch_size"], "2");
  EXPECT_EQ(settings["--logging_dir"], path("curves/first"));
  EXPECT_EQ(settings["--seed"], "42");
  fs::remove_all(directory_ / "out");
  expect_refused(command, {"--logging_dir", "curves/first", "--overwrite"});
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
