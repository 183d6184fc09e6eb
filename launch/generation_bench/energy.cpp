#include "launch/generation_bench/energy.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>

#include "core/error.h"
#include "core/process.h"

namespace strata {

class EnergyRecorder::Meter {
 public:
  virtual ~Meter() = default;
  virtual void begin() = 0;
  /// Joules since begin() or the look before. @throws Error where they cannot be had
  virtual double look() = 0;
};

class EnergyRecorder::CounterMeter final : public Meter {
 public:
  explicit CounterMeter(const std::filesystem::path& root) : counters_(root) {}
  void begin() override { look(); }
  double look() override {
    const std::optional<double> joules = counters_.joules_since_last();
    if (!joules) {
      throw Error(
          "no readable energy counter under /sys/class/powercap; run as root, or name a command "
          "that prints watts with --power-command");
    }
    return *joules;
  }

 private:
  EnergyMeter counters_;
};

class EnergyRecorder::PowerMeter final : public Meter {
 public:
  explicit PowerMeter(std::string command) : command_(std::move(command)) {}
  void begin() override { last_ = sample(); }
  double look() override {
    const Sample now = sample();
    const std::chrono::duration<double> passed = now.time - last_.time;
    const double joules = (now.watts + last_.watts) / 2 * passed.count();
    last_ = now;
    return joules;
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Sample {
    double watts = 0;
    Clock::time_point time = {};
  };
  Sample sample() const {
    const double watts = read_watts(command_);
    return {watts, Clock::now()};
  }

  std::string command_;
  Sample last_;
};

EnergyRecorder::EnergyRecorder(const EnergyOptions& options) : options_(options) {
  if (options.power_command.empty()) {
    meter_ = std::make_unique<CounterMeter>(options.root);
  } else {
    meter_ = std::make_unique<PowerMeter>(options.power_command);
  }
}

EnergyRecorder::~EnergyRecorder() {
  if (thread_.joinable()) stop();
}

const char* EnergyRecorder::source() const noexcept {
  return options_.power_command.empty() ? "RAPL" : "power command";
}

void EnergyRecorder::begin() {
  expects(!thread_.joinable(), "energy is being recorded already");
  reading_ = {};
  stopping_ = false;
  try {
    meter_->begin();
    reading_.joules = 0;
  } catch (const std::exception& error) {
    reading_.missing = error.what();
  }
  thread_ = std::thread([this] { run(); });
}

EnergyReading EnergyRecorder::end() {
  expects(thread_.joinable(), "no energy is being recorded");
  stop();
  return reading_;
}

void EnergyRecorder::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void EnergyRecorder::run() {
  bool last = !reading_.joules;  // nothing to look at
  while (!last) {
    {
      std::unique_lock lock(mutex_);
      last = wake_.wait_for(lock, options_.interval, [this] { return stopping_; });
    }
    try {
      *reading_.joules += meter_->look();
    } catch (const std::exception& error) {
      reading_ = {.joules = {}, .missing = error.what()};
      return;
    }
  }
}

double parse_watts(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  double sum = 0;
  bool any = false;
  while (std::getline(lines, line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    char* end = nullptr;
    const double watts = std::strtod(line.c_str(), &end);
    std::string unit(end);
    std::erase_if(unit, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
    const bool known_unit = unit.empty() || unit == "W" || unit == "w" || unit == "Watts";
    if (end == line.c_str() || !known_unit || !std::isfinite(watts) || watts < 0) {
      throw Error(fmt::format("\"{}\" is no number of watts", line.substr(0, 60)));
    }
    sum += watts;
    any = true;
  }
  if (!any) throw Error("it printed nothing");
  return sum;
}

double read_watts(const std::string& command) {
  const auto fail = [&command](const std::string& fault) {
    throw Error(fmt::format("--power-command \"{}\": {}", command, fault));
  };
  std::FILE* const pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) fail("it cannot be started");
  constexpr std::size_t kMost = 64 << 10;
  std::string text;
  std::array<char, 4096> part{};
  while (const std::size_t count = std::fread(part.data(), 1, part.size(), pipe)) {
    if (text.size() < kMost) text.append(part.data(), count);
  }
  const int status = pclose(pipe);
  if (status != 0) {
    fail(fmt::format("it ended with status {}", WIFEXITED(status) ? WEXITSTATUS(status) : status));
  }
  try {
    return parse_watts(text);
  } catch (const Error& error) {
    fail(error.what());
  }
  return 0;
}

}  // namespace strata
