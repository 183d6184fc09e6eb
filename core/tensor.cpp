#include "core/tensor.h"

#include <algorithm>

namespace strata {

Shape::Shape(std::initializer_list<std::int64_t> dims)
    : Shape(std::span<const std::int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) {
  expects(dims.size() <= kMaxRank, "a shape has at most four dimensions");
  for (const std::int64_t dim : dims) {
    expects(dim >= 0, "a dimension is negative");
    dims_[static_cast<std::size_t>(rank_++)] = dim;
  }
}

std::int64_t Shape::operator[](int axis) const {
  const int index = axis < 0 ? axis + rank_ : axis;
  expects(index >= 0 && index < rank_, "the axis is outside the shape");
  return dims_[static_cast<std::size_t>(index)];
}

std::int64_t Shape::numel() const noexcept {
  std::int64_t count = 1;
  for (const std::int64_t dim : dims()) count *= dim;
  return count;
}

bool Shape::operator==(const Shape& other) const noexcept {
  return std::ranges::equal(dims(), other.dims());
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string((*this)[axis]);
  }
  return text + "]";
}

ConstTensorView ConstTensorView::reshape(Shape shape) const {
  expects(shape.numel() == numel(), "a reshape must keep the number of elements");
  return {data_, dtype_, shape};
}

ConstTensorView ConstTensorView::flat(std::int64_t begin, std::int64_t numel) const {
  expects(begin >= 0 && numel >= 0 && begin + numel <= this->numel(),
          "the range lies outside the tensor");
  expects(!is_quantized(dtype_) || (begin % kGroupNumel == 0 && numel % kGroupNumel == 0),
          "a quantised tensor can be cut between its groups of 64 only");
  const std::size_t offset = storage_bytes(dtype_, begin);
  return {static_cast<const std::byte*>(data_) + offset, dtype_, Shape{numel}};
}

ConstTensorView ConstTensorView::rows(std::int64_t begin, std::int64_t count) const {
  expects(shape_.rank() > 0, "a scalar has no rows");
  const std::int64_t row = shape_[0] == 0 ? 0 : numel() / shape_[0];
  std::array<std::int64_t, Shape::kMaxRank> dims{};
  std::ranges::copy(shape_.dims(), dims.begin());
  dims[0] = count;
  return flat(begin * row, count * row)
      .reshape(Shape({dims.data(), static_cast<std::size_t>(shape_.rank())}));
}

}  // namespace strata
