#pragma once

// Internal: the token shards of llm.c. Not installed.

#include <cstdint>

#include "core/file.h"

namespace strata {

/// Whether a file begins as a shard does. @throws IoError
bool is_token_shard(const ReadableFile& file);

/// The first place at or behind `offset` between two tokens. @throws FormatError
std::uint64_t token_boundary(const ReadableFile& file, std::uint64_t offset);

}  // namespace strata
