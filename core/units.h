#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace strata {

/// The smallest multiple of `multiple` that is not below `value`. @pre value >= 0, multiple > 0
template <std::integral Whole>
constexpr Whole round_up(Whole value, std::type_identity_t<Whole> multiple) noexcept {
  return (value + multiple - 1) / multiple * multiple;
}

/// The largest multiple of `multiple` that is not above `value`. @pre value >= 0, multiple > 0
template <std::integral Whole>
constexpr Whole round_down(Whole value, std::type_identity_t<Whole> multiple) noexcept {
  return value / multiple * multiple;
}

/// Bytes of a size as people write it: "1.5GiB", "512MB", "64k", "4096".
///
/// KiB, MiB, GiB, TiB, PiB and the bare letters k, M, G, T, P are powers of 1024; KB, MB, GB, TB,
/// PB powers of 1000; B or nothing means bytes. Upper and lower case are the same, a space before
/// the unit is allowed, a fraction is rounded down to a whole byte.
/// @throws UsageError that starts with `flag` and names the value, for anything else and above 2^63
std::uint64_t parse_bytes(std::string_view flag, std::string_view text);

/// "1.50 GiB", "64 KiB", "17 B": three significant digits, powers of 1024, for memory.
std::string format_bytes(std::uint64_t bytes);

/// "1.50 GB", powers of 1000, for drives and traffic.
std::string format_traffic(double bytes);

/// "26.2M", "1.01T", "950", powers of 1000, for parameters and tokens.
std::string format_count(double count);

/// "3.2 ms", "14.0 s", "3 min 5 s", "2 h 4 min".
std::string format_seconds(double seconds);

}  // namespace strata
