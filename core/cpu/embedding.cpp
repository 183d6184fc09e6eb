#include <fmt/format.h>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"
#include "core/group_quantization.h"

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

/// A row of a quantised table into y, or added to it.
template <typename T>
void take_quantized_row(const std::byte* from, Dtype dtype, std::int64_t features, bool accumulate,
                        T* to) {
  for (std::int64_t i = 0; i < features; i += kGroupNumel, from += group_bytes(dtype)) {
    float group[kGroupNumel];
    dequantize(from, dtype, group);
    if (accumulate) {
      add_row(group, to + i, kGroupNumel);
    } else {
      for (std::int64_t j = 0; j < kGroupNumel; ++j) store(to[i + j], group[j]);
    }
  }
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
  expect_compute("embedding", "y", y);
  const Rows size = rows_of("embedding", y);
  expects(table.shape().rank() == 2, "embedding: the table must be [V, C]");
  const Shape expected{table.shape()[0], size.features};
  expects(!is_interleaved(table.dtype()), "embedding: rows of the table must not be interleaved");
  if (is_quantized(table.dtype())) {
    expect_shape("embedding", "table", table, expected);
    expect_whole_groups("embedding", "table", table);
  } else {
    expect_tensor("embedding", "table", table, y.dtype(), expected);
  }
  expects(ids.dtype() == Dtype::kI32 && ids.numel() == size.rows,
          "embedding: ids must be one int32 for each row of y");
  submit(stream, threads_, [=] {
    expect_ids_in_table(ids, table.shape()[0]);
    const auto row_bytes = static_cast<std::int64_t>(storage_bytes(table.dtype(), size.features));
    visit_compute_dtype(y.dtype(), [&]<typename T>(T) {
      for_row_blocks(size.rows, size.features, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t t = begin; t < begin + count; ++t) {
          const auto* row =
              static_cast<const std::byte*>(table.data()) + ids.as<std::int32_t>()[t] * row_bytes;
          T* to = y.as<T>() + t * size.features;
          if (is_quantized(table.dtype())) {
            take_quantized_row(row, table.dtype(), size.features, accumulate, to);
          } else if (accumulate) {
            add_row(reinterpret_cast<const T*>(row), to, size.features);
          } else {
            copy_row(reinterpret_cast<const T*>(row), to, size.features);
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
