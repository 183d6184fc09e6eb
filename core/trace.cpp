#include "core/trace.h"

#include <fmt/format.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string_view>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::array<const char*, kTraceLanes> kLaneNames = {
    "step", "read", "write", "update", "copy", "collectives", "compute"};
constexpr std::uint64_t kMagic = 0x3165636172747331;  // changes with the layout below

/// As it travels between ranks of one build: header, then names, then records.
struct Header {
  std::uint64_t magic;
  std::uint64_t origin_ns;
  std::uint64_t dropped;
  std::uint64_t records;
  std::uint64_t name_bytes;  ///< names are joined with '\0'
  std::array<char, 40> machine;
};

struct Record {
  std::uint64_t begin_ns;
  std::uint64_t end_ns;
  std::int64_t block;
  std::uint64_t bytes;
  std::uint32_t name;
  std::uint32_t lane;
};
static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<Record>);

/// Equal on two ranks exactly when their clocks are the same clock.
std::array<char, 40> machine_identity() {
  std::array<char, 40> identity{};
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  file.getline(identity.data(), identity.size());
  return identity;
}

/// One rank's events after the journey.
struct RankTrace {
  Header header{};
  std::vector<std::string> names;
  std::vector<Record> records;
};

RankTrace parse(const std::vector<std::byte>& bytes, const std::string& path) {
  const FormatError damaged(path +
                            ": the events of a rank are damaged; run the same build everywhere");
  RankTrace trace;
  if (bytes.size() < sizeof(Header)) throw damaged;
  std::memcpy(&trace.header, bytes.data(), sizeof(Header));
  const Header& header = trace.header;
  const std::size_t rest = bytes.size() - sizeof(Header);
  if (header.magic != kMagic || header.name_bytes > rest ||
      header.records != (rest - header.name_bytes) / sizeof(Record) ||
      (rest - header.name_bytes) % sizeof(Record) != 0) {
    throw damaged;
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data() + sizeof(Header));
  std::string_view names(text, header.name_bytes);
  while (!names.empty()) {
    const std::size_t end = names.find('\0');
    if (end == std::string_view::npos) throw damaged;
    trace.names.emplace_back(names.substr(0, end));
    names.remove_prefix(end + 1);
  }
  trace.records.resize(header.records);
  if (header.records > 0) {
    std::memcpy(trace.records.data(), text + header.name_bytes, header.records * sizeof(Record));
  }
  for (const Record& record : trace.records) {
    if (record.name >= trace.names.size() || record.lane >= kTraceLanes) throw damaged;
  }
  return trace;
}

/// Writes pieces of JSON and notices the first failure.
class TraceFile {
 public:
  explicit TraceFile(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "we")) {
    if (file_ == nullptr) throw IoError("cannot open the trace", path_, 0, errno);
    put("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
  }

  void event(std::string_view text) {
    put(first_ ? "\n" : ",\n");
    first_ = false;
    put(text);
  }

  void close(std::uint64_t dropped) {
    put(fmt::format("\n],\"otherData\":{{\"dropped_events\":{}}}}}\n", dropped));
    if (std::fclose(file_.release()) != 0) throw IoError("cannot write the trace", path_, 0, errno);
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  void put(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size()) {
      throw IoError("cannot write the trace", path_, 0, errno);
    }
  }
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  bool first_ = true;
};

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

double microseconds(std::uint64_t ns, std::uint64_t origin_ns) {
  return static_cast<double>(static_cast<std::int64_t>(ns - origin_ns)) * 1e-3;
}

void write_names(TraceFile& file, std::size_t rank) {
  constexpr const char* kMetadata =
      R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"{}":{}}}}})";
  file.event(
      fmt::format(kMetadata, "process_name", rank, 0, "name", fmt::format("\"rank {}\"", rank)));
  file.event(fmt::format(kMetadata, "process_sort_index", rank, 0, "sort_index", rank));
  for (std::size_t lane = 0; lane < kLaneNames.size(); ++lane) {
    file.event(fmt::format(kMetadata, "thread_name", rank, lane, "name",
                           fmt::format("\"{}\"", kLaneNames[lane])));
    file.event(fmt::format(kMetadata, "thread_sort_index", rank, lane, "sort_index", lane));
  }
}

void write_records(TraceFile& file, std::size_t rank, const RankTrace& trace,
                   std::uint64_t origin_ns) {
  std::vector<std::string> names;
  for (const std::string& text : trace.names) names.push_back(quoted(text));
  for (const Record& record : trace.records) {
    const double begin = microseconds(record.begin_ns, origin_ns);
    const double duration = microseconds(record.end_ns, record.begin_ns);
    file.event(
        fmt::format(R"({{"ph":"X","name":{},"cat":"{}","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},)"
                    R"("args":{{"block":{},"bytes":{}}}}})",
                    names[record.name], kLaneNames[record.lane], rank, record.lane, begin, duration,
                    record.block, record.bytes));
  }
}

}  // namespace

const char* name(TraceLane lane) noexcept { return kLaneNames[static_cast<std::size_t>(lane)]; }

Trace::Trace(bool enabled, std::size_t capacity)
    : enabled_(enabled), capacity_(capacity), origin_ns_(now_ns()) {}

std::uint64_t Trace::now_ns() noexcept {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(time.tv_nsec);
}

void Trace::add(TraceLane lane, const char* name, std::uint64_t begin_ns, std::uint64_t end_ns,
                std::int64_t block, std::uint64_t bytes) {
  if (!enabled_) return;
  keep({name, begin_ns, end_ns, block, bytes, static_cast<std::uint8_t>(lane)});
}

void Trace::keep(const Event& event) {
  const std::scoped_lock lock(mutex_);
  if (events_.size() < capacity_) {
    events_.push_back(event);
  } else {
    ++dropped_;
  }
}

void Trace::set_origin() {
  const std::scoped_lock lock(mutex_);
  origin_ns_ = now_ns();
}

std::vector<std::byte> Trace::to_bytes() const {
  const std::scoped_lock lock(mutex_);
  std::map<std::string_view, std::uint32_t> numbers;
  std::string names;
  std::vector<Record> records;
  records.reserve(events_.size());
  for (const Event& event : events_) {
    const auto [entry, added] =
        numbers.emplace(event.name, static_cast<std::uint32_t>(numbers.size()));
    if (added) names.append(event.name).push_back('\0');
    records.push_back(
        {event.begin_ns, event.end_ns, event.block, event.bytes, entry->second, event.lane});
  }
  const Header header{kMagic,         origin_ns_,   dropped_,
                      records.size(), names.size(), machine_identity()};
  std::vector<std::byte> bytes(sizeof(Header) + names.size() + records.size() * sizeof(Record));
  std::byte* out = bytes.data();
  std::memcpy(out, &header, sizeof(Header));
  std::memcpy(out + sizeof(Header), names.data(), names.size());
  if (!records.empty()) {
    std::memcpy(out + sizeof(Header) + names.size(), records.data(),
                records.size() * sizeof(Record));
  }
  return bytes;
}

void write_trace(const std::string& path, std::span<const std::vector<std::byte>> ranks) {
  std::vector<RankTrace> traces;
  for (const auto& bytes : ranks) traces.push_back(parse(bytes, path));
  std::map<std::string, std::uint64_t> origins;  // of the first rank of each machine
  std::uint64_t dropped = 0;
  TraceFile file(path);
  for (std::size_t rank = 0; rank < traces.size(); ++rank) {
    const Header& header = traces[rank].header;
    const std::string machine(header.machine.begin(), header.machine.end());
    const std::uint64_t origin_ns = origins.emplace(machine, header.origin_ns).first->second;
    write_names(file, rank);
    write_records(file, rank, traces[rank], origin_ns);
    dropped += header.dropped;
  }
  file.close(dropped);
}

}  // namespace strata
