#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace strata {

/// One kind of state of a shard. All sections of a shard have one element per parameter. A frozen
/// shard has kWeights only, any other the rest.
enum class Section : std::uint8_t {
  kHi,        ///< bf16: the weight of bf16 products, upper half of the fp32 master
  kLo,        ///< int16: what hi lost; (hi << 16) + lo is the master
  kM,         ///< fp32: first moment, or momentum
  kV,         ///< fp32: second moment
  kGradient,  ///< compute dtype: the shard of the step's gradient, between backward and update
  kWeights,   ///< compute dtype: all there is of frozen parameters, read only
};
/// What an update changes.
inline constexpr std::array kStateSections{Section::kHi, Section::kLo, Section::kM, Section::kV};
inline constexpr int kSectionCount = 6;

std::string_view name(Section section) noexcept;  ///< "hi", "lo", ...

/// A section of this rank's shard of one block, or of a part of it that is cut on its own.
struct SectionKey {
  int block = 0;
  Section section = Section::kHi;
  auto operator<=>(const SectionKey&) const = default;
};

}  // namespace strata
