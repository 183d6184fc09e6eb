#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace strata {

/// Consecutive bytes of a striped space lie on one file in runs of this many.
inline constexpr std::uint64_t kStripeBytes = std::uint64_t{4} << 20;

/// A part of a range, in one file.
struct StripeRun {
  std::size_t file = 0;
  std::uint64_t offset = 0;  ///< bytes into the file
  std::uint64_t bytes = 0;

  bool operator==(const StripeRun&) const = default;
};

/// Which file every byte of a space lies in. Stripes are dealt to the files in a repeating pattern,
/// each file's share in proportion to its weight (to within a few percent: a pattern has at most 64
/// stripes), and every file used from its start without gaps.
class StripeMap {
 public:
  /// @throws UsageError if a weight is not a positive number
  explicit StripeMap(std::span<const double> weights);

  /// The runs of [offset, offset + bytes) in order. Neighbours in one file are one run.
  std::vector<StripeRun> map(std::uint64_t offset, std::uint64_t bytes) const;
  /// How long file `file` must be for a space of `bytes` bytes.
  std::uint64_t file_bytes(std::size_t file, std::uint64_t bytes) const;
  /// Stripes of file `file` in one round of the pattern.
  std::uint64_t share(std::size_t file) const { return shares_[file]; }

 private:
  std::vector<std::uint64_t> shares_;   // by file
  std::vector<std::size_t> pattern_;    // the file of each stripe of a round
  std::vector<std::uint64_t> ordinal_;  // how many stripes of the same file precede it in the round
};

}  // namespace strata
