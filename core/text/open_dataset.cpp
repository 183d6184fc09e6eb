#include "core/text/open_dataset.h"

#include "core/text/document_files.h"

namespace strata {

Dataset open_dataset(std::span<const std::filesystem::path> files, const Tokenizer& tokenizer,
                     DatasetOptions options) {
  options.end_of_document = tokenizer.end_of_document();
  return Dataset(read_documents(document_files(files), tokenizer), options);
}

}  // namespace strata
