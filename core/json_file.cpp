#include "core/json_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace strata {
namespace {

using nlohmann::json;

/// Sees every event of the parser; nlohmann itself keeps the last of two equal keys and has no
/// depth.
class Guard {
 public:
  Guard(const std::string& path, int max_depth) : path_(path), max_depth_(max_depth) {}

  bool operator()(int depth, json::parse_event_t event, json& value) {
    if (depth > max_depth_) {
      throw FormatError(fmt::format("{}: nested deeper than {} levels", path_, max_depth_));
    }
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) {
        throw FormatError(fmt::format("{}: the key \"{:.100}\" occurs twice", path_, key));
      }
    }
    return true;
  }

 private:
  const std::string& path_;
  int max_depth_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

std::string read_text_file(const std::filesystem::path& file, std::size_t cap_bytes) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw IoError("cannot open", file.string(), 0, errno);
  std::string text;
  std::vector<char> piece(64 * 1024);
  while (stream.read(piece.data(), static_cast<std::streamsize>(piece.size())),
         stream.gcount() > 0) {
    text.append(piece.data(), static_cast<std::size_t>(stream.gcount()));
    if (text.size() > cap_bytes) {
      throw FormatError(fmt::format("{}: longer than the {} bytes such a file may have",
                                    file.string(), cap_bytes));
    }
  }
  if (stream.bad()) throw IoError("cannot read", file.string(), text.size(), EIO);
  return text;
}

json parse_json_object(std::string_view text, const std::string& path, int max_depth) {
  if (text.find('\0') != std::string_view::npos) {  // where nlohmann would stop reading
    throw FormatError(path + ": not valid JSON: it contains a zero byte");
  }
  json document;
  try {
    Guard guard(path, max_depth);
    document = json::parse(text, [&](int depth, json::parse_event_t event, json& value) {
      return guard(depth, event, value);
    });
  } catch (const json::exception& cause) {
    throw FormatError(fmt::format("{}: not valid JSON: {}", path, describe_json_fault(cause)));
  }
  if (!document.is_object()) throw FormatError(path + ": not a JSON object");
  return document;
}

std::string describe_json_fault(const json::exception& cause) {
  constexpr std::string_view kPlace = "parse error at ";
  std::string_view what = cause.what();
  what.remove_prefix(what.find("] ") + 2);  // the name of the exception
  if (what.starts_with(kPlace)) what.remove_prefix(kPlace.size());
  std::string text;
  for (const char c : what.substr(0, 200)) {
    const bool printable = c >= ' ' && c <= '~';
    text += printable ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return text;
}

void write_json_file(const std::filesystem::path& file, const json& value) {
  std::error_code failure;
  if (!file.parent_path().empty()) std::filesystem::create_directories(file.parent_path(), failure);
  if (failure) {
    throw IoError("its directory could not be created", file.string(), 0, failure.value());
  }
  write_text_file(file, value.dump(2) + "\n");
}

}  // namespace strata
