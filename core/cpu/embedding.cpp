#include <fmt/format.h>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

template <typename T>
STRATA_MULTIVERSION void copy_row(const T* __restrict from, T* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
}

template <typename To, typename From>
STRATA_MULTIVERSION void add_row(const From* __restrict from, To* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], load(to[i]) + load(from[i]));
}

/// @throws Error naming the first id outside [0, rows)
void expect_ids_in_table(ConstTensorView ids, std::int64_t rows) {
  const std::int32_t* data = ids.as<std::int32_t>();
  for (std::int64_t t = 0; t < ids.numel(); ++t) {
    if (data[t] >= 0 && data[t] < rows) continue;
    throw Error(
        fmt::format("embedding: id {} at token {} is outside the table of {} rows; the "
                    "text was encoded for another vocabulary or is too long",
                    data[t], t, rows));
  }
}

}  // namespace

void CpuOps::embedding(ConstTensorView ids, ConstTensorView table, TensorView y, bool accumulate,
                       Stream& stream) {
  expect_compute("embedding", "table", table);
  const Rows size = rows_of("embedding", y);
  expects(table.shape().rank() == 2, "embedding: the table must be [V, C]");
  expect_tensor("embedding", "table", table, y.dtype(), {table.shape()[0], size.features});
  expects(ids.dtype() == Dtype::kI32 && ids.numel() == size.rows,
          "embedding: ids must be one int32 for each row of y");
  submit(stream, threads_, [=] {
    expect_ids_in_table(ids, table.shape()[0]);
    visit_compute_dtype(y.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const T* row = table.as<T>() + ids.as<std::int32_t>()[t] * size.features;
          T* to = y.as<T>() + t * size.features;
          if (accumulate) {
            add_row(row, to, size.features);
          } else {
            copy_row(row, to, size.features);
          }
        }
      });
    });
  });
}

void CpuOps::embedding_backward(ConstTensorView ids, ConstTensorView dy, std::int64_t row_begin,
                                TensorView dtable, Stream& stream) {
  expect_compute("embedding_backward", "dy", dy);
  const Rows size = rows_of("embedding_backward", dy);
  expects(dtable.shape().rank() == 2, "embedding_backward: dtable must be [R, C]");
  expect_tensor("embedding_backward", "dtable", dtable, Dtype::kF32,
                {dtable.shape()[0], size.features});
  expects(ids.dtype() == Dtype::kI32 && ids.numel() == size.rows,
          "embedding_backward: ids must be one int32 for each row of dy");
  submit(stream, threads_, [=] {
    // Spread over the team by columns, so that each element is added to in token order.
    constexpr std::int64_t kColumns = 256;
    const std::int64_t row_count = dtable.shape()[0];
    const std::int32_t* tokens = ids.as<std::int32_t>();
    visit_compute_dtype(dy.dtype(), [&]<typename T>(T) {
      for_blocks(size.features, kColumns, [&](std::int64_t column, std::int64_t count) {
        for (std::int64_t t = 0; t < size.rows; ++t) {
          const std::int64_t row = tokens[t] - row_begin;
          if (row < 0 || row >= row_count) continue;
          add_row(dy.as<T>() + t * size.features + column,
                  dtable.as<float>() + row * size.features + column, count);
        }
      });
    });
  });
}

}  // namespace strata::cpu
