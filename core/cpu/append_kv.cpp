#include <algorithm>
#include <vector>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/kv_lines.h"
#include "core/cpu/kv_pages.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

/// Rows whose tokens lie in one page, the first of them at `place`.
struct PageRows {
  std::int64_t row;
  std::int64_t rows;
  std::int32_t page;
  std::int64_t place;
};

std::vector<PageRows> cut_at_pages(std::span<const SequenceRows> sequences) {
  std::vector<PageRows> parts;
  for (const SequenceRows& sequence : sequences) {
    for (std::int64_t row = 0; row < sequence.rows;) {
      const std::int64_t token = sequence.position + row, place = token % kPageTokens;
      const std::int64_t rows = std::min(kPageTokens - place, sequence.rows - row);
      parts.push_back({sequence.row + row, rows,
                       sequence.pages[static_cast<std::size_t>(token / kPageTokens)], place});
      row += rows;
    }
  }
  return parts;
}

}  // namespace

void CpuOps::append_kv(const PagedKv& kv, std::span<const SequenceRows> sequences,
                       ConstTensorView k, ConstTensorView v, Stream& stream) {
  expect_compute("append_kv", "k", k);
  const Rows rows = rows_of("append_kv", k);
  expect_tensor("append_kv", "v", v, k.dtype(), k.shape());
  expects(rows.features == kv.kv_heads * kv.head_size,
          "append_kv: k has other heads than the pages");
  expect_pages(sequences, rows.rows);
  expect_format(kv);
  submit(stream, threads_, [=] {
    const KvHeadLayout layout(kv.dtype, kv.head_size);
    const std::vector<PageRows> parts = cut_at_pages(sequences);
    visit_compute_dtype(k.dtype(), [&]<typename T>(T) {
      // One thread for each head of a page: tokens may share a byte.
      for_blocks(std::ssize(parts) * kv.kv_heads, 1, [&](std::int64_t index, std::int64_t) {
        const PageRows& part = parts[static_cast<std::size_t>(index / kv.kv_heads)];
        const std::int64_t kv_head = index % kv.kv_heads;
        std::byte* head = head_of(kv, layout, part.page, kv_head);
        for (std::int64_t row = 0; row < part.rows; ++row) {
          const std::int64_t from = ((part.row + row) * kv.kv_heads + kv_head) * kv.head_size;
          store_kv_token(layout, k.as<T>() + from, v.as<T>() + from, part.place + row, head);
        }
      });
    });
  });
}

}  // namespace strata::cpu
