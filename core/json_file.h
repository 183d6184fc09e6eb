#pragma once

// Internal: JSON files, those from strangers included. Not installed.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace strata {

/// The whole file as bytes. @throws FormatError if it is longer than `cap_bytes`, IoError if
/// unreadable
std::string read_text_file(const std::filesystem::path& file, std::size_t cap_bytes);

/// Parses hostile JSON: valid UTF-8, an object outside, nesting at most `max_depth`, no key twice
/// in one object. @throws FormatError that starts with `path`
nlohmann::json parse_json_object(std::string_view text, const std::string& path, int max_depth);

/// What nlohmann found wrong, for a message: "line 1, column 3: syntax error ...", at most 200
/// characters of printable ASCII, whatever the text had there.
std::string describe_json_fault(const nlohmann::json::exception& cause);

/// Makes `value` the content of `file` as write_text_file() does, creating its directory where
/// needed. @throws IoError naming the file
void write_json_file(const std::filesystem::path& file, const nlohmann::json& value);

}  // namespace strata
