#include "swap/fio.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace strata {
namespace {

struct Output {
  int status = 0;  ///< as waitpid gives it
  std::string text;
};

std::string read_to_end(int descriptor) {
  std::string text;
  std::array<char, 4096> part{};
  for (;;) {
    const ssize_t count = read(descriptor, part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return text;
    text.append(part.data(), static_cast<std::size_t>(count));
  }
}

/// What the program prints, or nothing if there is no such program.
std::optional<Output> run_program(std::vector<std::string> arguments) {
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) throw Error(describe_errno("pipe for fio", errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDERR_FILENO);
  pid_t child = -1;
  const int failure =
      posix_spawnp(&child, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  Output output;
  if (failure == 0) {
    output.text = read_to_end(pipe_ends[0]);
    while (waitpid(child, &output.status, 0) < 0 && errno == EINTR) {
    }
  }
  close(pipe_ends[0]);
  if (failure == ENOENT) return std::nullopt;
  if (failure != 0) throw Error(describe_errno("starting fio", failure));
  return output;
}

std::string direction(const IoLoad& load) {
  switch (load.kind) {
    case IoLoad::Kind::kRead:
      return "read";
    case IoLoad::Kind::kWrite:
      return "write";
    case IoLoad::Kind::kMixed:
      break;
  }
  return "rw";
}

std::vector<std::string> arguments_for(const IoLoad& load, const std::string& path,
                                       std::uint64_t file_bytes, bool direct,
                                       const std::string& engine) {
  const double read_percent = 100 * load.read_share / (load.read_share + load.write_share);
  return {"fio",
          "--name=strata",
          "--output-format=json",
          "--filename=" + path,
          "--allow_file_create=0",
          fmt::format("--size={}", file_bytes),
          fmt::format("--bs={}", load.engine.block_bytes),
          fmt::format("--iodepth={}", load.engine.queue_depth),
          "--ioengine=" + engine,
          fmt::format("--direct={}", direct ? 1 : 0),
          "--rw=" + direction(load),
          fmt::format("--rwmixread={}", std::lround(read_percent)),
          "--time_based",
          fmt::format("--runtime={}ms", std::lround(load.seconds * 1000)),
          "--ramp_time=500ms",
          "--randrepeat=0"};
}

}  // namespace

std::optional<IoBandwidth> run_fio(const IoLoad& load, const std::string& path,
                                   std::uint64_t file_bytes, bool direct,
                                   const std::string& engine) {
  const std::optional<Output> output =
      run_program(arguments_for(load, path, file_bytes, direct, engine));
  if (!output) return std::nullopt;
  const std::size_t begin = output->text.find('{');  // warnings come before it
  const auto root = nlohmann::json::parse(
      begin == std::string::npos ? std::string() : output->text.substr(begin), nullptr, false);
  const bool ended_well = WIFEXITED(output->status) && WEXITSTATUS(output->status) == 0;
  try {
    if (!ended_well) throw Error("it failed");
    const nlohmann::json& job = root.at("jobs").at(0);
    if (job.at("error").get<int>() != 0) throw Error("a transfer failed");
    return IoBandwidth{job.at("read").at("bw_bytes").get<double>(),
                       job.at("write").at("bw_bytes").get<double>()};
  } catch (const std::exception& cause) {
    throw Error(fmt::format("fio gave no figure ({}); it said: {}", cause.what(),
                            output->text.substr(0, 1000)));
  }
}

}  // namespace strata
