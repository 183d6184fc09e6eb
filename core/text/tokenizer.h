#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// What lies before a text. Some tokenizers put a space before the first word of one.
enum class TextStart : std::uint8_t {
  kBeginning,   ///< nothing
  kAfterToken,  ///< a special token
  kWithin,      ///< other text, which goes on here: nothing is put before it
};

struct EncodeOptions {
  /// Special tokens that the text spells are those tokens. For text that a program wrote, such as a
  /// chat template's; what strangers wrote is data.
  bool parse_special = false;
  bool add_special = false;  ///< what the model expects around a text, such as a BOS token
  TextStart start = TextStart::kBeginning;
};

/// Text to token ids and back. Immutable: all methods may be called on several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text`. Bytes that are not UTF-8 count as U+FFFD, except for the byte tokenizer.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const {
    std::vector<std::int32_t> ids;
    encode(text, options, ids);
    return ids;
  }
  /// The same, added to `ids`.
  virtual void encode(std::string_view text, const EncodeOptions& options,
                      std::vector<std::int32_t>& ids) const = 0;

  /// The text of `ids`. Part of a text may begin or end within a character.
  /// @throws Error for an id that is no token
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const = 0;

  /// What the model expects around a text; see add_special.
  struct Frame {
    std::vector<std::int32_t> before, behind;
  };
  virtual const Frame& frame() const noexcept = 0;

  /// One more than the largest id.
  virtual std::int64_t vocab_size() const noexcept = 0;

  /// The token that follows every document of a training text.
  virtual std::int32_t end_of_document() const noexcept = 0;

  /// The id of a token as its file spells it. None: there is no such token.
  virtual std::optional<std::int32_t> find(std::string_view token) const = 0;

  /// Tokenizers with the same fingerprint give the same ids.
  virtual std::uint64_t fingerprint() const noexcept = 0;

  /// One line for people: "BPE, 50257 tokens, byte-level".
  virtual std::string describe() const = 0;
};

/// Decodes a text token by token: what can be shown so far, and never part of a character.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// The text that has become complete with this token.
  std::string add(std::int32_t id);
  /// What is left at the end.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  // The last token shown, for what decoders do at a beginning, and those behind it.
  std::vector<std::int32_t> ids_;
  std::size_t shown_ = 0;  // bytes of their text
};

/// Byte b is token b, and 256 ends a document. Encodes any bytes, valid UTF-8 or not.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// The byte tokenizer as a tokenizer.json that the `tokenizers` library loads: BPE without merges
/// over the 256 characters GPT-2 spells bytes with, in the order of the bytes. Same ids, except
/// that the library takes a literal "<|endoftext|>" in a text for the special token.
std::string byte_tokenizer_json();

/// The tokenizer of a tokenizer.json: byte-pair encoding with the normalizers, pre-tokenizers,
/// decoders and post-processors of the families in core/model (docs/user-guide.md lists them).
/// `path` is for messages. The text may be hostile.
/// @param end the token that ends documents; empty: the first there is of <|endoftext|>,
/// <|end_of_text|>, </s>
/// @throws FormatError that starts with `path` and says what is not supported
std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, const std::string& path,
                                           std::string_view end = {});

/// The tokenizer of a model directory: tokenizer.json, or vocab.json and merges.txt, with what
/// tokenizer_config.json says of special tokens. A file is taken as a tokenizer.json. At most 256
/// MiB. @throws UsageError when there is none, FormatError, IoError
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& directory_or_file);

}  // namespace strata
