#pragma once

// Internal: text in a file that is read anywhere. Not installed.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "core/file.h"

namespace strata {

/// Bytes [begin, end) of a file. @throws IoError
std::string read_text(const ReadableFile& file, std::uint64_t begin, std::uint64_t end);

/// The first place at or behind `offset` and before `end` where a line begins.
std::optional<std::uint64_t> next_line(const ReadableFile& file, std::uint64_t offset,
                                       std::uint64_t end);

/// "train.jsonl:17" for the line that begins at `offset`. Reads all that is before it.
std::string line_name(const ReadableFile& file, std::uint64_t offset);

}  // namespace strata
