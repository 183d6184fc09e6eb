#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace strata {

struct EnergyOptions {
  /// A command line for sh that prints the watts of the machine, or of its parts, a number on each
  /// line, and ends soon. Empty: the processor's own counters (EnergyMeter).
  std::string power_command = {};
  /// Between looks; well below the minute in which the processor's counters may wrap.
  std::chrono::milliseconds interval{1000};
  std::filesystem::path root = "/";  ///< where counters are looked for
};

/// What was measured, or why nothing was: never a guess.
struct EnergyReading {
  std::optional<double> joules = {};
  std::string missing = {};  ///< why there are no joules, with the remedy; empty when there are
};

/// Energy from begin() to end(), looked at now and then by a thread of its own. Counters are added
/// up; power is taken as changing evenly from one look to the next. One look that fails makes the
/// whole reading a missing one.
class EnergyRecorder {
 public:
  explicit EnergyRecorder(const EnergyOptions& options);
  ~EnergyRecorder();
  EnergyRecorder(const EnergyRecorder&) = delete;
  EnergyRecorder& operator=(const EnergyRecorder&) = delete;

  /// "RAPL" or "power command": what end() measures with.
  const char* source() const noexcept;

  /// Looks once and starts the thread. @pre not between begin() and end()
  void begin();
  /// Looks once more and ends the thread; blocks until a look under way is over. @pre after begin()
  EnergyReading end();

 private:
  /// Adds the energy since the look before.
  class Meter;
  class CounterMeter;
  class PowerMeter;

  void run();
  void stop();

  EnergyOptions options_;
  std::unique_ptr<Meter> meter_;
  EnergyReading reading_;  // of the thread, until it was joined
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

/// The sum of the numbers that a power command prints, one a line; a unit behind a number ("W") is
/// let pass.
/// @throws Error saying what is wrong with the text
double parse_watts(const std::string& text);

/// Runs a power command and reads what it prints. @throws Error with the command and its fault
double read_watts(const std::string& command);

}  // namespace strata
