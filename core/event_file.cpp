#include "core/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <optional>
#include <system_error>

#include "core/error.h"
#include "core/metrics_fields.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr std::string_view kSuffix = ".strata";

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t kCastagnoli = 0x82f63b78;  // reflected
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kCastagnoli : 0);
    table[byte] = crc;
  }
  return table;
}

/// CRC-32C as TFRecords keep it: rotated and shifted, so that a CRC over CRCs stays one.
std::uint32_t masked_crc(std::string_view data) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : data) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return std::rotr(~crc, 15) + 0xa282ead8;
}

template <typename Unsigned>
void put_fixed(std::string& out, Unsigned value) {
  for (std::size_t byte = 0; byte < sizeof(Unsigned); ++byte) {
    out.push_back(static_cast<char>(value >> (8 * byte)));
  }
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_bytes(std::string& out, char key, std::string_view bytes) {
  out.push_back(key);
  put_varint(out, bytes.size());
  out.append(bytes);
}

// Keys of protocol buffers are the field's number * 8 + its wire type: 0 varint, 1 eight bytes,
// 2 bytes with their length, 5 four bytes.
constexpr char kEventWallTime = 1 * 8 + 1;
constexpr char kEventStep = 2 * 8 + 0;
constexpr char kEventFileVersion = 3 * 8 + 2;
constexpr char kEventSummary = 5 * 8 + 2;
constexpr char kSummaryValue = 1 * 8 + 2;
constexpr char kValueTag = 1 * 8 + 2;
constexpr char kValueSimple = 2 * 8 + 5;

std::string event_now() {
  const std::chrono::duration<double> wall = std::chrono::system_clock::now().time_since_epoch();
  std::string event(1, kEventWallTime);
  put_fixed(event, std::bit_cast<std::uint64_t>(wall.count()));
  return event;
}

/// The values of one step.
class Summary {
 public:
  void operator()(const char*, const char* tag, double value) {
    if (tag == nullptr) return;
    std::string scalar;
    put_bytes(scalar, kValueTag, tag);
    scalar.push_back(kValueSimple);
    put_fixed(scalar, std::bit_cast<std::uint32_t>(static_cast<float>(value)));
    put_bytes(values_, kSummaryValue, scalar);
  }
  void operator()(const char* key, const char* tag, const std::optional<double>& value) {
    if (value) (*this)(key, tag, *value);
  }
  void operator()(const char*, const char*, const std::string&) {}
  template <typename Whole>
  void operator()(const char* key, const char* tag, const Whole& value) {
    (*this)(key, tag, static_cast<double>(value));
  }

  std::string event(std::int64_t step) const {
    std::string event = event_now();
    event.push_back(kEventStep);
    put_varint(event, static_cast<std::uint64_t>(step));
    put_bytes(event, kEventSummary, values_);
    return event;
  }

 private:
  std::string values_;
};

void remove_earlier_files(const fs::path& directory) {
  std::error_code failure;
  std::vector<fs::path> earlier;
  for (const auto& entry : fs::directory_iterator(directory, failure)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) earlier.push_back(entry.path());
  }
  for (const fs::path& file : earlier) {
    if (!fs::remove(file, failure) && failure) {
      throw IoError("cannot remove the event file of an earlier run", file.string(), 0,
                    failure.value());
    }
  }
}

std::string file_name() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("{}{}.{}.{}{}", kPrefix,
                     std::chrono::duration_cast<std::chrono::seconds>(now).count(), host.data(),
                     getpid(), kSuffix);
}

}  // namespace

EventWriter::EventWriter(const fs::path& directory) : path_((directory / file_name()).string()) {
  remove_earlier_files(directory);
  file_.reset(std::fopen(path_.c_str(), "we"));
  if (file_ == nullptr) throw IoError("cannot open the event file", path_, 0, errno);
  std::string version = event_now();
  put_bytes(version, kEventFileVersion, "brain.Event:2");
  write_record(version);
}

void EventWriter::write(const StepMetrics& metrics) {
  Summary summary;
  visit_step_fields(metrics, summary);
  write_record(summary.event(metrics.step));
}

void EventWriter::write(const EvaluationMetrics& metrics) {
  Summary summary;
  visit_evaluation_fields(metrics, summary);
  write_record(summary.event(metrics.step));
}

void EventWriter::write_record(std::string_view event) {
  std::string record;
  put_fixed(record, static_cast<std::uint64_t>(event.size()));
  put_fixed(record, masked_crc(record));
  record.append(event);
  put_fixed(record, masked_crc(event));
  const bool written = std::fwrite(record.data(), 1, record.size(), file_.get()) == record.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw IoError("cannot write an event", path_, 0, errno);
  }
}

}  // namespace strata
