#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/text/tokenizer.h"

namespace strata {

/// The files to train on: `named` without those that are the same file (inode) as an earlier one. A
/// symbolic link is followed, since it was named.
/// @throws UsageError for a directory or anything else that is not a regular file, or when nothing
/// is named; IoError for a file that cannot be examined
std::vector<std::filesystem::path> document_files(std::span<const std::filesystem::path> named);

/// All documents in one row: each file is a document, followed by end_of_document(). An empty file
/// is no document. @throws UsageError if there is no text or more than `max_bytes` of it, IoError
std::vector<std::int32_t> read_documents(std::span<const std::filesystem::path> files,
                                         const Tokenizer& tokenizer,
                                         std::uint64_t max_bytes = std::uint64_t{1} << 30);

}  // namespace strata
