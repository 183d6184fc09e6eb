#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/plot/series.h"

namespace strata::plot {

/// `text` as content or attribute of XML and HTML: markup is escaped, what XML does not allow
/// (bytes that are not UTF-8, control characters) becomes U+FFFD.
std::string escape_xml(std::string_view text);

/// Pixels, y downwards.
struct Box {
  double x = 0;
  double y = 0;
  double width = 0;
  double height = 0;

  double right() const noexcept { return x + width; }
  double bottom() const noexcept { return y + height; }
};

enum class Anchor : std::uint8_t { kStart, kMiddle, kEnd };

/// The elements of a drawing, in the order they are added. `look` is the CSS class of an element.
class Svg {
 public:
  void text(double x, double y, Anchor anchor, std::string_view look, std::string_view text);
  /// A heading with its unit beside it in a lighter look.
  void heading(double x, double y, std::string_view title, std::string_view unit);
  void line(Point from, Point to, std::string_view look);
  void rectangle(const Box& box, std::string_view look);
  /// With `hint` as what a browser shows for it.
  void dot(Point center, double radius, std::string_view look, std::string_view hint);
  /// Straight lines through pixels; a gap begins a new one. `name` stands in data-name.
  void path(const Series& pixels, std::string_view look, std::string_view name);
  /// The area inside straight lines through pixels without gaps.
  void area(const Series& pixels, std::string_view look, std::string_view name);
  /// Elements until end() are a group with data-name.
  void begin(std::string_view name);
  void end();

  /// The elements of `other` after its own.
  void append(const Svg& other) { elements_ += other.elements_; }

  /// The whole document, `width` x `height` pixels, at home in an HTML page too.
  std::string document(double width, double height, std::string_view title) const;

 private:
  std::string elements_;
};

/// What `text` takes in pixels at 12 px, roughly: fonts are the browser's choice.
double text_width(std::string_view text);

/// Curves, dots and swatches of the n-th run have the class "rN", for N below this; then they
/// repeat.
inline constexpr int kRunColors = 8;

}  // namespace strata::plot
