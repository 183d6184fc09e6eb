#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "parallel/transport.h"

namespace strata {

/// Bytes of memory that `ranks` ranks share for collectives with these options.
std::size_t shared_region_bytes(int ranks, const CollectiveOptions& options);

/// Collectives through memory that every rank has mapped: threads of one process, or processes of
/// one node. Each rank copies its part into its half of a staging window, which is double-buffered,
/// and reads the others' parts from theirs; ranks that wait sleep in futexes on counters in the
/// region.
///
/// `region` has shared_region_bytes() bytes, starts at a multiple of 64, is zero before the first
/// rank uses it, serves one group once, and outlives the transport. It need not be mapped at the
/// same address everywhere. Options are the same on every rank.
///
/// Ranks that call different operations, or one with different sizes, get an Error that names both;
/// a rank that does not come in time is an Error that names it, the operation and its bytes.
std::unique_ptr<Transport> make_shared_transport(std::span<std::byte> region, int rank, int size,
                                                 const CollectiveOptions& options);

/// Makes waits of all ranks of the region throw soon: for a group whose ranks live in one process.
void abandon_shared_region(std::span<std::byte> region) noexcept;

}  // namespace strata
