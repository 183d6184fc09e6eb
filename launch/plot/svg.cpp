#include "launch/plot/svg.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <iterator>

#include "core/text/utf8.h"

namespace strata::plot {
namespace {

/// Mid tones, legible on white and on black.
constexpr std::array<const char*, kRunColors> kColors = {
    "#2f7ed8", "#e8710a", "#2a9d4a", "#d6394a", "#9460d0", "#0d9aa8", "#d6569e", "#9a6a3c"};

struct LaneColor {
  const char* lane;
  const char* color;
};
constexpr std::array<LaneColor, 6> kLaneColors = {{{"compute", "#2f7ed8"},
                                                   {"update", "#2a9d4a"},
                                                   {"collective", "#9460d0"},
                                                   {"read_wait", "#e8710a"},
                                                   {"write_wait", "#d6394a"},
                                                   {"rest", "#9aa3ad"}}};

/// Every rule begins with .sp, so that none reaches a page around the drawing.
std::string theme(const char* background, const char* ink, const char* faint_ink,
                  const char* grid) {
  return fmt::format(
      ".sp .back{{fill:{0}}}.sp text{{fill:{1}}}.sp .mark,.sp .unit{{fill:{2}}}"
      ".sp .grid{{stroke:{3}}}.sp .axis{{stroke:{2}}}.sp .whole{{stroke:{1}}}.sp .dot{{fill:{0}}}",
      background, ink, faint_ink, grid);
}

std::string style() {
  std::string css =
      ".sp text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
      ".sp .page{font-size:18px;font-weight:600}.sp .title{font-size:14px;font-weight:600}"
      ".sp .grid,.sp .axis{stroke-width:1;fill:none}"
      ".sp .line,.sp .faint,.sp .dashed,.sp .whole{fill:none;stroke-width:1.8;"
      "stroke-linejoin:round;stroke-linecap:round}"
      ".sp .faint{stroke-width:1;stroke-opacity:.45}.sp .dashed{stroke-dasharray:5 4}"
      ".sp .whole{stroke-width:1.2}.sp .dot{stroke-width:1.8}"
      ".sp .skip{stroke:#d6394a;stroke-width:1.5}.sp .area{stroke:none}";
  for (std::size_t i = 0; i < kColors.size(); ++i) {
    css += fmt::format(".sp .r{0}{{stroke:{1}}}.sp .s{0}{{fill:{1}}}", i, kColors[i]);
  }
  for (const LaneColor& lane : kLaneColors) {
    css += fmt::format(".sp .{}{{fill:{}}}", lane.lane, lane.color);
  }
  css += theme("#ffffff", "#1c2126", "#66707a", "#e6e9ec");
  css += "@media (prefers-color-scheme:dark){" + theme("#14181c", "#e4e8eb", "#98a2ac", "#2b3238") +
         "}";
  return css;
}

const char* name(Anchor anchor) {
  return anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
}

/// "M1,2L3,4": a stretch of one point is a line of no length, which its round ends make visible.
std::string path_data(const Series& pixels) {
  std::string data;
  const auto out = std::back_inserter(data);
  bool drawing = false;
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const Point& point = pixels[i];
    if (std::isnan(point.y)) {
      drawing = false;
      continue;
    }
    fmt::format_to(out, "{}{:.1f},{:.1f}", drawing ? 'L' : 'M', point.x, point.y);
    const bool last = i + 1 == pixels.size() || std::isnan(pixels[i + 1].y);
    if (!drawing && last) data += "h0";
    drawing = true;
  }
  return data;
}

bool is_xml_character(char32_t code) {
  if (code < 0x20) return code == '\n' || code == '\t';
  return code != 0x7f && code != 0xfffe && code != 0xffff;
}

}  // namespace

std::string escape_xml(std::string_view text) {
  std::string out;
  const std::string valid = valid_utf8(text);
  for (std::string_view rest = valid; !rest.empty();) {
    const Character character = first_character(rest);
    const std::string_view bytes = rest.substr(0, character.bytes);
    rest.remove_prefix(character.bytes);
    if (bytes == "&") {
      out += "&amp;";
    } else if (bytes == "<") {
      out += "&lt;";
    } else if (bytes == ">") {
      out += "&gt;";
    } else if (bytes == "\"") {
      out += "&quot;";
    } else if (is_xml_character(character.code)) {
      out += bytes;
    } else {
      append_utf8(out, kReplacement);
    }
  }
  return out;
}

double text_width(std::string_view text) {
  double width = 0;
  for (const char c : text) {
    const bool continues = (static_cast<unsigned char>(c) & 0xc0) == 0x80;
    if (continues) continue;
    const bool narrow = std::string_view(" ,.'ijlftr").find(c) != std::string_view::npos;
    width += narrow ? 4 : c == 'm' || c == 'w' ? 10.5 : 7.2;
  }
  return width;
}

void Svg::text(double x, double y, Anchor anchor, std::string_view look, std::string_view text) {
  elements_ +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x,
                  y, name(anchor), look, escape_xml(text));
}

void Svg::heading(double x, double y, std::string_view title, std::string_view unit) {
  elements_ += fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\"><tspan class=\"title\">{}</tspan>"
      "<tspan class=\"unit\" dx=\"8\">{}</tspan></text>\n",
      x, y, escape_xml(title), escape_xml(unit));
}

void Svg::line(Point from, Point to, std::string_view look) {
  elements_ +=
      fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n",
                  from.x, from.y, to.x, to.y, look);
}

void Svg::rectangle(const Box& box, std::string_view look) {
  elements_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"/>\n", box.x,
      box.y, box.width, box.height, look);
}

void Svg::dot(Point center, double radius, std::string_view look, std::string_view hint) {
  elements_ += fmt::format(
      "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" class=\"{}\"><title>{}</title></circle>\n",
      center.x, center.y, radius, look, escape_xml(hint));
}

void Svg::path(const Series& pixels, std::string_view look, std::string_view name) {
  elements_ += fmt::format("<path class=\"{}\" data-name=\"{}\" d=\"{}\"/>\n", look,
                           escape_xml(name), path_data(pixels));
}

void Svg::area(const Series& pixels, std::string_view look, std::string_view name) {
  elements_ += fmt::format("<path class=\"{}\" data-name=\"{}\" d=\"{}Z\"/>\n", look,
                           escape_xml(name), path_data(pixels));
}

void Svg::begin(std::string_view name) {
  elements_ += fmt::format("<g data-name=\"{}\">\n", escape_xml(name));
}

void Svg::end() { elements_ += "</g>\n"; }

std::string Svg::document(double width, double height, std::string_view title) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"sp\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\">\n<title>{2}</title>\n"
      "<style>{3}</style>\n{4}</svg>\n",
      width, height, escape_xml(title), style(), elements_);
}

}  // namespace strata::plot
