#include "core/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

/// CRC-32C bit by bit, from its definition.
std::uint32_t plain_crc32c(std::string_view data) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

template <typename Value>
Value take(std::string_view& data) {
  if (data.size() < sizeof(Value)) throw FormatError("a record is cut short");
  Value value;
  std::memcpy(&value, data.data(), sizeof(Value));
  data.remove_prefix(sizeof(Value));
  return value;
}

std::string_view take(std::string_view& data, std::uint64_t bytes) {
  if (data.size() < bytes) throw FormatError("a record is cut short");
  const std::string_view front = data.substr(0, bytes);
  data.remove_prefix(bytes);
  return front;
}

/// The records of a TFRecord file, both checksums of each checked.
std::vector<std::string_view> records(std::string_view file) {
  const auto check = [](std::string_view data, std::uint32_t masked) {
    const std::uint32_t rotated = masked - 0xa282ead8;
    if (((rotated >> 17) | (rotated << 15)) != plain_crc32c(data)) {
      throw FormatError("a checksum is wrong");
    }
  };
  std::vector<std::string_view> all;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto length = take<std::uint64_t>(file);
    check(length_bytes, take<std::uint32_t>(file));
    all.push_back(take(file, length));
    check(all.back(), take<std::uint32_t>(file));
  }
  return all;
}

std::uint64_t take_varint(std::string_view& data) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<unsigned char>(data);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

struct Event {
  double wall_time = 0;
  std::uint64_t step = 0;
  std::string version;
  std::map<std::string, float> scalars;
};

void read_scalar(std::string_view value, Event& event) {
  std::string tag;
  while (!value.empty()) {
    const std::uint64_t key = take_varint(value);
    if (key == 10) {
      tag = take(value, take_varint(value));
    } else if (key == 21) {
      event.scalars[tag] = take<float>(value);
    } else {
      throw FormatError("an unknown field of a value");
    }
  }
}

Event read_event(std::string_view record) {
  Event event;
  while (!record.empty()) {
    const std::uint64_t key = take_varint(record);
    if (key == 9) {
      event.wall_time = take<double>(record);
    } else if (key == 16) {
      event.step = take_varint(record);
    } else if (key == 26) {
      event.version = take(record, take_varint(record));
    } else if (key == 42) {
      std::string_view summary = take(record, take_varint(record));
      while (!summary.empty()) {
        if (take_varint(summary) != 10) throw FormatError("an unknown field of a summary");
        read_scalar(take(summary, take_varint(summary)), event);
      }
    } else {
      throw FormatError("an unknown field of an event");
    }
  }
  return event;
}

std::vector<Event> read_events(const std::string& path) {
  const std::string file = test::read_file(path);
  std::vector<Event> events;
  for (const std::string_view record : records(file)) events.push_back(read_event(record));
  return events;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST(EventFile, ChecksumOfTheTestIsTheCastagnoliOne) {
  EXPECT_EQ(plain_crc32c("123456789"), 0xe3069283);
}

TEST(EventFile, HasEveryNumberOfAStepUnderItsTag) {
  const test::TemporaryDirectory directory;
  const double before = now();
  EventWriter writer(directory.path());
  writer.write(StepMetrics{.step = 300,
                           .loss = 2.5,
                           .grad_norm = 0.75,
                           .learning_rate = 1e-3,
                           .tokens = 4096,
                           .seconds = 2,
                           .tokens_per_second = 2048,
                           .mfu = 0.5,
                           .swap_bytes_read = 1u << 30,
                           .swap_bytes_written = 3,
                           .seconds_compute = 1,
                           .seconds_read_wait = 0.25,
                           .seconds_write_wait = 0.125,
                           .seconds_update = 0.5,
                           .seconds_collective = 0.0625,
                           .seconds_save_wait = 0.03125,
                           .bound_by = "compute",
                           .bound_fraction = 0.5,
                           .rss_peak_bytes = 1u << 20,
                           .energy_joules = 12,
                           .skipped = true,
                           .skipped_steps = 3,
                           .loss_scale = 32768.0});
  const std::vector<Event> events = read_events(writer.path());  // while it is still open
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_EQ(events[1].step, 300u);
  EXPECT_GE(events[1].wall_time, before);
  EXPECT_LE(events[1].wall_time, now());
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"train/loss", 2.5f},
                                                             {"train/grad_norm", 0.75f},
                                                             {"train/learning_rate", 1e-3f},
                                                             {"train/tokens", 4096.f},
                                                             {"time/step", 2.f},
                                                             {"perf/tokens_per_second", 2048.f},
                                                             {"perf/mfu", 0.5f},
                                                             {"swap/read_bytes", 0x1p30f},
                                                             {"swap/written_bytes", 3.f},
                                                             {"time/compute", 1.f},
                                                             {"time/read_wait", 0.25f},
                                                             {"time/write_wait", 0.125f},
                                                             {"time/update", 0.5f},
                                                             {"time/collective", 0.0625f},
                                                             {"time/save_wait", 0.03125f},
                                                             {"perf/bound_fraction", 0.5f},
                                                             {"memory/rss_peak_bytes", 0x1p20f},
                                                             {"perf/energy_joules", 12.f},
                                                             {"train/skipped", 1.f},
                                                             {"train/skipped_steps", 3.f},
                                                             {"train/loss_scale", 32768.f}}));
}

TEST(EventFile, HasEvaluationsAndLeavesOutWhatIsUnknown) {
  const test::TemporaryDirectory directory;
  EventWriter writer(directory.path());
  writer.write(StepMetrics{.step = 1, .loss = std::numeric_limits<double>::quiet_NaN()});
  writer.write(EvaluationMetrics{.step = 1, .loss = 3.5, .tokens = 100});
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(std::isnan(events[1].scalars.at("train/loss")));
  EXPECT_FALSE(events[1].scalars.contains("perf/energy_joules"));
  EXPECT_FALSE(events[1].scalars.contains("train/loss_scale"));
  EXPECT_EQ(events[2].step, 1u);
  EXPECT_EQ(events[2].scalars,
            (std::map<std::string, float>{{"eval/loss", 3.5f}, {"eval/tokens", 100.f}}));
}

TEST(EventFile, ReplacesThatOfAnEarlierRunAndNoOther) {
  const test::TemporaryDirectory directory;
  test::write_file(directory / "events.out.tfevents.1.host.2.strata", "earlier");
  test::write_file(directory / "events.out.tfevents.1.host.2.0", "of somebody else");
  EventWriter writer(directory.path());
  EXPECT_FALSE(std::filesystem::exists(directory / "events.out.tfevents.1.host.2.strata"));
  EXPECT_TRUE(std::filesystem::exists(directory / "events.out.tfevents.1.host.2.0"));
  EXPECT_EQ(std::filesystem::path(writer.path()).parent_path(), directory.path());
}

TEST(EventFile, NamesTheFileItCannotWrite) {
  const test::TemporaryDirectory directory;
  try {
    EventWriter writer(directory / "missing");
    FAIL() << "a directory that is not there was written into";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("missing/events.out.tfevents"), std::string::npos);
  }
}

}  // namespace
}  // namespace strata
