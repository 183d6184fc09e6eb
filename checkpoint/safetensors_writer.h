#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/dtype.h"

namespace strata {

struct TensorDeclaration {
  std::string name;
  std::vector<std::int64_t> shape;
};

/// Writes the weights of a model as Hugging Face lays them out: `model.safetensors`, or shards of
/// at most `max_shard_bytes` (a larger tensor has one to itself) named
/// model-00001-of-0000n.safetensors with model.safetensors.index.json.
///
/// All tensors are declared first; then the elements of each are written from first to last, in
/// pieces of any size. Tensors go into shards in the order of their declaration, so writing in that
/// order keeps one file open at a time. Memory does not depend on the sizes. Nothing has its name
/// before finish(); a writer that is dropped earlier leaves nothing behind. One thread at a time.
class SafetensorsWriter {
 public:
  struct Options {
    Dtype dtype = Dtype::kF32;  ///< of every tensor: fp32, bf16 or fp16
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool overwrite = false;  ///< weights that lie in the directory are replaced at finish()
  };

  /// `directory` must exist.
  /// @throws UsageError if it holds weights and `overwrite` is not set; Error if a name comes twice
  SafetensorsWriter(std::filesystem::path directory, std::vector<TensorDeclaration> tensors,
                    Options options);

  /// The next elements of tensor `name`, rounded to nearest even for bf16 and fp16. Blocks until
  /// the kernel has them. @throws IoError; UsageError if fp16 has no room for a value; Error if the
  /// tensor was not declared or gets more than its elements
  void write(std::string_view name, std::span<const float> values);
  void write(std::string_view name, std::span<const bf16> values);

  /// Makes everything durable and visible: the shards, then the index, then the directory; then
  /// removes weights of an earlier save that would be taken for these. @throws Error naming a
  /// tensor that is not complete, IoError
  void finish();

 private:
  struct Placed {
    std::size_t shard = 0;
    std::uint64_t offset = 0;  ///< of the next byte, from the start of the file
    std::uint64_t left = 0;    ///< bytes still to come
  };
  struct Shard {
    std::string file_name;
    std::string header;       ///< with its length in front
    std::uint64_t bytes = 0;  ///< of the whole file
    std::uint64_t left = 0;
    std::optional<DurableFile> file;
  };

  void place(const std::vector<TensorDeclaration>& tensors, std::uint64_t max_shard_bytes);
  void add_shard(std::span<const TensorDeclaration> tensors);
  void name_shards();
  template <typename Stored, typename Value>
  void append_as(std::string_view name, std::span<const Value> values);
  void append(std::string_view name, std::span<const std::byte> bytes);
  std::string index() const;
  void remove_stale() const;

  std::filesystem::path directory_;
  Options options_;
  std::map<std::string, Placed, std::less<>> tensors_;
  std::vector<Shard> shards_;
};

}  // namespace strata
