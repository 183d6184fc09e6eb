#pragma once

#include <filesystem>
#include <span>

#include "core/text/dataset.h"
#include "core/text/tokenizer.h"

namespace strata {

/// A dataset of text files, each a document, in the order named (core/text/document_files.h). The
/// tokenizer says what ends a document: options.end_of_document is not looked at. Every rank opens
/// its own.
/// @throws UsageError if the files cannot be trained on or an option is out of range, IoError
Dataset open_dataset(std::span<const std::filesystem::path> files, const Tokenizer& tokenizer,
                     DatasetOptions options);

}  // namespace strata
