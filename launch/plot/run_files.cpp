#include "launch/plot/run_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>

#include "core/error.h"
#include "core/json_file.h"

namespace strata::plot {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kDescription = "run.json";
constexpr std::size_t kMostDescriptionBytes = 16 << 20;

fs::path metrics_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw UsageError(fmt::format("{}: does not exist", path.string()));
  if (!fs::is_directory(path, error)) return path;
  if (fs::exists(path / kMetrics, error)) return path / kMetrics;
  throw UsageError(fmt::format("{}: has no {}; name the --out of a `strata train`, or such a file",
                               path.string(), kMetrics));
}

/// "run-3" of "runs/run-3/", of "runs/run-3/metrics.jsonl", and of "." inside it.
std::string short_name(const fs::path& path) {
  fs::path whole = fs::absolute(path).lexically_normal();
  if (whole.filename() == kMetrics || !whole.has_filename()) whole = whole.parent_path();
  const std::string name = whole.filename().string();
  return name.empty() ? path.string() : name;
}

/// A value of run.json, which is there and of the wanted type or a FormatError.
class Values {
 public:
  Values(const nlohmann::json& object, std::string file)
      : object_(object), file_(std::move(file)) {}

  template <typename Value>
  Value get(const char* key) const {
    try {
      return object_.at(key).get<Value>();
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(fmt::format("{}: \"{}\": {:.200}; remove the file to do without it", file_,
                                    key, error.what()));
    }
  }

 private:
  const nlohmann::json& object_;
  std::string file_;
};

}  // namespace

std::vector<Run> read_runs(const std::vector<fs::path>& paths, std::vector<std::string>& warnings) {
  std::vector<Run> runs;
  std::multiset<std::string> names;
  for (const fs::path& path : paths) {
    runs.push_back({short_name(path), read_metrics(metrics_file(path), warnings)});
    names.insert(runs.back().name);
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (names.count(runs[i].name) > 1) runs[i].name = paths[i].string();
  }
  return runs;
}

void write_description(const RunDescription& description, const fs::path& directory) {
  Json settings = Json::array();
  for (const auto& [flag, value] : description.settings) settings.push_back({flag, value});
  Json drives = Json::array();
  for (const DriveWear& drive : description.drives) {
    drives.push_back({{"device", drive.device}, {"wear", nullptr}});
    if (drive.wear) drives.back()["wear"] = *drive.wear;
  }
  const Json json = {{"plan", description.plan},
                     {"planned_step_seconds", description.planned_step_seconds},
                     {"planned_bound", description.planned_bound},
                     {"settings", settings},
                     {"drives", drives}};
  replace_file(directory / kDescription,
               json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::optional<RunDescription> read_description(const fs::path& directory) {
  const fs::path file = directory / kDescription;
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  const nlohmann::json json =
      parse_json_object(read_text_file(file, kMostDescriptionBytes), file.string(), 8);
  const Values values(json, file.string());
  RunDescription description;
  description.plan = values.get<std::string>("plan");
  description.planned_step_seconds = values.get<double>("planned_step_seconds");
  description.planned_bound = values.get<std::string>("planned_bound");
  description.settings = values.get<std::vector<std::pair<std::string, std::string>>>("settings");
  for (const auto& drive : values.get<std::vector<nlohmann::json>>("drives")) {
    const Values of_drive(drive, file.string());
    description.drives.push_back({of_drive.get<std::string>("device"), std::nullopt});
    const auto wear = of_drive.get<nlohmann::json>("wear");
    if (!wear.is_null()) description.drives.back().wear = of_drive.get<double>("wear");
  }
  return description;
}

void replace_file(const fs::path& file, const std::string& text) {
  const fs::path fresh = fmt::format("{}.{}.tmp", file.string(), getpid());
  std::ofstream stream(fresh, std::ios::binary);
  if (!stream) throw IoError("cannot create", file.string(), 0, errno);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
  stream.close();
  int system_error = stream ? 0 : errno;
  if (system_error == 0 && std::rename(fresh.c_str(), file.c_str()) != 0) system_error = errno;
  if (system_error == 0) return;
  unlink(fresh.c_str());
  throw IoError("cannot write", file.string(), 0, system_error);
}

}  // namespace strata::plot
