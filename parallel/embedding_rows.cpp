#include "parallel/embedding_rows.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "parallel/stored_range.h"

namespace strata {
namespace {

/// Reading waits for single rows: a few pieces are enough.
constexpr std::size_t kPoolBytes = FileReader::kPoolBytes / 32;

std::size_t row_bytes(Parameter table, const WeightStorage& storage) {
  return storage_bytes(storage.of(*table), table->shape[1]);
}

}  // namespace

std::size_t EmbeddingRows::memory_bytes(const Block& block, const WeightStorage& storage,
                                        std::int64_t rows) {
  std::size_t bytes =
      kPoolBytes + 2 * static_cast<std::size_t>(rows) * row_bytes(block.looked_up(), storage);
  for (const auto& spec : block.parameters()) {
    if (spec.get() != block.looked_up()) {
      bytes += storage_bytes(storage.of(*spec), spec->shape.numel());
    }
  }
  return bytes;
}

EmbeddingRows::EmbeddingRows(const Block& block, const WeightStorage& storage,
                             const Sources& sources, std::int64_t rows, Device& device,
                             IoEngine& engine)
    : table_(block.looked_up()),
      dtype_(storage.of(*table_)),
      device_(device),
      pool_(allocate_host(kPoolBytes)),
      host_rows_(allocate_host(static_cast<std::size_t>(rows) * row_bytes(table_, storage))),
      device_rows_(device.allocate(host_rows_.bytes())),
      files_(engine, {pool_.data(), pool_.bytes()}),
      place_(find(table_, sources)) {
  const std::unique_ptr<Stream> copy = device.make_stream();
  for (const auto& spec : block.parameters()) {
    if (spec.get() == table_) continue;
    Kept kept{.parameter = spec.get(), .dtype = storage.of(*spec), .memory = {}};
    kept.memory = device.allocate(storage_bytes(kept.dtype, spec->shape.numel()));
    read_whole(kept, find(kept.parameter, sources), device, *copy);
    others_.push_back(std::move(kept));
  }
}

EmbeddingRows::Place EmbeddingRows::find(Parameter parameter, const Sources& sources) {
  if (sources.copy) {
    const auto& [space, offset, part, compute] = *sources.copy;
    const Placement& placement = part.placement(parameter);
    return {.file = files_.open(space),
            .offset = offset + static_cast<std::uint64_t>(placement.offset) * size_bytes(compute),
            .dtype = placement.quantized.value_or(compute)};
  }
  const StoredParameter stored = sources.locator(parameter).value();
  return {.file = files_.open(stored.path), .offset = stored.offset, .dtype = stored.dtype};
}

void EmbeddingRows::read_whole(Kept& kept, const Place& place, Device& device, Stream& copy) {
  const Buffer staging = allocate_host(kept.memory.bytes());
  const TensorView host(staging.data(), kept.dtype, kept.parameter->shape);
  files_.read({stored_range(place.file, place.offset, place.dtype, host)}, {}).wait();
  device.copy(host, {kept.memory.data(), kept.dtype, kept.parameter->shape}, copy);
  copy.synchronize();
}

std::vector<std::int32_t> EmbeddingRows::fetch(std::span<const std::int32_t> ids, Stream& compute) {
  std::vector<std::int32_t> distinct(ids.begin(), ids.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  fetched_ = static_cast<std::int64_t>(distinct.size());
  if (fetched_ == 0) return {};

  const std::size_t kept = storage_bytes(dtype_, width());
  const std::size_t stored = storage_bytes(place_.dtype, width());
  expects(distinct.size() * kept <= host_rows_.bytes(), "a pass looks up more rows than planned");
  std::vector<FileReader::Range> ranges;
  for (std::size_t i = 0; i < distinct.size(); ++i) {
    const TensorView row(host_rows_.data() + i * kept, dtype_, {1, width()});
    const auto id = static_cast<std::uint64_t>(distinct[i]);
    ranges.push_back(stored_range(place_.file, place_.offset + id * stored, place_.dtype, row));
  }
  files_.read(std::move(ranges), {}).wait();
  const Shape shape{fetched_, width()};
  device_.copy(ConstTensorView(host_rows_.data(), dtype_, shape),
               TensorView(device_rows_.data(), dtype_, shape), compute);

  std::vector<std::int32_t> rows;
  rows.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const auto found = std::lower_bound(distinct.begin(), distinct.end(), id);
    rows.push_back(static_cast<std::int32_t>(found - distinct.begin()));
  }
  return rows;
}

ConstTensorView EmbeddingRows::weight(Parameter parameter) const {
  if (parameter == table_) return {device_rows_.data(), dtype_, {fetched_, width()}};
  const auto found = std::ranges::find(others_, parameter, &Kept::parameter);
  expects(found != others_.end(), "the parameter's block is not this one");
  return {found->memory.data(), found->dtype, parameter->shape};
}

}  // namespace strata
