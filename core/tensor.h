#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace strata {

/// Up to four dimensions, row-major. A default-constructed shape is a scalar: rank 0, one element.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const noexcept { return rank_; }
  std::int64_t operator[](int axis) const;  ///< negative axes count from the end
  std::int64_t numel() const noexcept;
  std::span<const std::int64_t> dims() const noexcept {
    return {dims_.data(), static_cast<std::size_t>(rank_)};
  }
  bool operator==(const Shape& other) const noexcept;
  std::string to_string() const;  ///< "[2, 33]"

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// A contiguous tensor that somebody else owns and nobody changes through this view.
/// `data` may be device memory: only an Ops or a Device may follow the pointer.
class ConstTensorView {
 public:
  ConstTensorView() = default;
  ConstTensorView(const void* data, Dtype dtype, Shape shape)
      : data_(data), dtype_(dtype), shape_(shape) {}

  const void* data() const noexcept { return data_; }
  Dtype dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  std::int64_t numel() const noexcept { return shape_.numel(); }
  std::size_t bytes() const noexcept { return storage_bytes(dtype_, numel()); }
  bool empty() const noexcept { return data_ == nullptr; }

  /// The elements, for code that runs where the memory is. @throws Error if T is not the dtype
  template <typename T>
  const T* as() const {
    expects(dtype_ == dtype_of<T>, "the tensor has another dtype");
    return static_cast<const T*>(data_);
  }
  ConstTensorView reshape(Shape shape) const;
  /// Elements [begin, begin + numel) of the flattened tensor, rank 1. A quantised tensor is cut
  /// between groups only.
  ConstTensorView flat(std::int64_t begin, std::int64_t numel) const;
  /// Rows [begin, begin + count) of the first dimension.
  ConstTensorView rows(std::int64_t begin, std::int64_t count) const;

 protected:
  const void* data_ = nullptr;
  Dtype dtype_ = Dtype::kF32;
  Shape shape_;
};

/// The same with write access.
class TensorView : public ConstTensorView {
 public:
  TensorView() = default;
  TensorView(void* data, Dtype dtype, Shape shape) : ConstTensorView(data, dtype, shape) {}

  void* data() const noexcept { return const_cast<void*>(data_); }
  template <typename T>
  T* as() const {
    return const_cast<T*>(ConstTensorView::as<T>());
  }
  TensorView reshape(Shape shape) const { return mutable_view(ConstTensorView::reshape(shape)); }
  TensorView flat(std::int64_t begin, std::int64_t numel) const {
    return mutable_view(ConstTensorView::flat(begin, numel));
  }
  TensorView rows(std::int64_t begin, std::int64_t count) const {
    return mutable_view(ConstTensorView::rows(begin, count));
  }

 private:
  static TensorView mutable_view(const ConstTensorView& view) {
    return {const_cast<void*>(view.data()), view.dtype(), view.shape()};
  }
};

}  // namespace strata
