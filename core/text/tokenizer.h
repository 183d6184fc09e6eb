#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// Text to token ids and back. Immutable: all methods may be called on several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text`, no special tokens added or recognised: what the text says is data.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;

  /// The bytes of `ids`; special tokens have none. Part of a text may end within a character.
  /// @throws Error for an id outside [0, vocab_size())
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  virtual std::int64_t vocab_size() const noexcept = 0;

  /// The token that follows every document of a training text.
  virtual std::int32_t end_of_document() const noexcept = 0;
};

/// Byte b is token b, and 256 ends a document. Encodes any bytes, valid UTF-8 or not.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// The byte tokenizer as a tokenizer.json that the `tokenizers` library loads: BPE without merges
/// over the 256 characters GPT-2 spells bytes with, in the order of the bytes. Same ids, except
/// that the library takes a literal "<|endoftext|>" in a text for the special token.
std::string byte_tokenizer_json();

/// The tokenizer of a tokenizer.json; `path` is for messages. The text may be hostile.
/// Only the byte tokenizer above is supported so far.
/// @throws FormatError that starts with `path` and says what is not supported
std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, const std::string& path);

/// parse_tokenizer() of a file of at most 64 MiB. @throws FormatError, IoError
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& file);

}  // namespace strata
