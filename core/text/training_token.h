#pragma once

#include <cstdint>

namespace strata {

/// A token of a training text and what belongs to it, in one word: the id, whether a document
/// starts with it, and whether it is learned.
class TrainingToken {
 public:
  static constexpr std::int32_t kMostIds = 1 << 30;  ///< ids are below

  TrainingToken() = default;
  TrainingToken(std::int32_t id, bool starts_document, bool trained)
      : word_(static_cast<std::uint32_t>(id) | (starts_document ? kStarts : 0u) |
              (trained ? 0u : kContext)) {}

  std::int32_t id() const noexcept { return static_cast<std::int32_t>(word_ & kId); }
  bool starts_document() const noexcept { return (word_ & kStarts) != 0; }
  /// Whether the model learns to predict it; what it only reads, such as a prompt, is not.
  bool trained() const noexcept { return (word_ & kContext) == 0; }
  bool operator==(const TrainingToken&) const = default;

 private:
  static constexpr std::uint32_t kStarts = std::uint32_t{1} << 30;
  static constexpr std::uint32_t kContext = std::uint32_t{1} << 31;
  static constexpr std::uint32_t kId = kStarts - 1;
  std::uint32_t word_ = 0;
};
static_assert(sizeof(TrainingToken) == 4);

}  // namespace strata
